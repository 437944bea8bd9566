"""Parameters by part: each is counted once, as PyTorch counts those of transformers' modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from pophood import look
from pophood.look.blocks import Lines
from tests.look.talk_shape import overlapping, without_weights
from tests.tiny import FAMILIES, GPT2_SIZES, gpt2_config, reference, tiny_config, tiny_folder


@pytest.mark.parametrize("name", [*FAMILIES[1:], *GPT2_SIZES])
def test_parts_add_up(name: str) -> None:
    config = gpt2_config(name) if name in GPT2_SIZES else tiny_config(name)
    view = look.parameters(without_weights(config, name))
    assert view.total == config.n_params == sum(view.groups.values())
    shares = [float(str(share)) for share in view.tables()["parameters"].column("share")]
    assert sum(shares) == pytest.approx(1)
    assert view.tables()["parameters"].column("shape")[0] == f"({config.vocab_size}, {config.n_embd})"
    if name in GPT2_SIZES:
        assert view.total == GPT2_SIZES[name][3]


def test_where_the_124_439_808_are() -> None:
    view = look.parameters(without_weights(gpt2_config("gpt2"), "gpt2"))
    assert view.total == 124_439_808
    assert view.groups == {
        "feed-forward": 56_669_184,
        "token embedding": 38_597_376,
        "attention": 28_348_416,
        "positions": 786_432,
        "norms": 38_400,
    }
    assert view.title == "Where the 124,439,808 parameters of GPT-2 are"
    assert "(tied): counted once. Counted twice, the total would be 163,037,184." in view.notes[0]
    assert view.notes[1] == "Each of the 12 blocks has 7,087,872 parameters."
    bar = view.picture()[0]
    assert isinstance(bar, Lines) and bar.ascii.isascii()
    first, plain = bar.text.splitlines()[0], bar.ascii.splitlines()[0]
    assert abs(len(first) - 50) <= 2 and len(plain) == len(first)
    assert first.count("█") == round(50 * 56_669_184 / 124_439_808)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_pytorch_counts_the_same(family: str, tmp_path: Path) -> None:
    model = reference(tiny_folder(tmp_path / family, family, vocab_size=300, tokenizer=False))
    view = look.parameters(without_weights(tiny_config(family, vocab_size=300), family))
    assert view.total == sum(p.numel() for p in model.parameters())
    marks = {"attention": ("c_attn", "attn.c_proj", "_proj"), "norms": ("ln_", "norm")}
    counted = {
        group: sum(
            p.numel()
            for name, p in model.named_parameters()
            if any(mark in name for mark in marks[group]) and not (group == "attention" and "mlp" in name)
        )
        for group in marks
    }
    assert {group: view.groups[group] for group in marks} == counted


def test_an_output_matrix_of_its_own_is_a_part() -> None:
    config = tiny_config("llama-untied")
    view = look.parameters(without_weights(config, "mine"))
    assert view.groups["output matrix"] == config.vocab_size * config.n_embd
    assert view.notes[0] == "The output matrix is its own, not tied to the token embedding."


def test_the_picture_is_legible() -> None:
    assert overlapping(look.parameters(without_weights(tiny_config("qwen3"), "qwen3")).figure()) == []
