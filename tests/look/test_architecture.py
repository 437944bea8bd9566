"""The diagram: the talk's page 34, boxes that add up to the model, both spellings, every family."""

from __future__ import annotations

import re

import pytest

from pophood import look
from pophood.look.blocks import Lines
from pophood.look.boxes import block_parameters
from tests.look.talk_shape import overlapping, smallest_text, without_weights
from tests.tiny import FAMILIES, GPT2_SIZES, gpt2_config, tiny_config


def test_the_talks_page_34() -> None:
    view = look.architecture(without_weights(gpt2_config("gpt2"), "gpt2"))
    sizes = view.picture()[0]
    assert isinstance(sizes, Lines) and sizes.text.splitlines() == [
        "Transformer blocks: 12",
        "Attention heads: 12",
        "Embedding size: 768",
        "Context length: 1024",
        "Vocabulary size: 50,257",
        "Parameters: 124,439,808",
    ]
    assert dict(view.facts) == {row["fact"]: row["value"] for row in view.tables()["facts"]}
    boxes = {box.title: box for box in view.boxes}
    assert boxes["up"].weights == "768 x 3072, bias 3072" and boxes["up"].parameters == 2_362_368
    assert boxes["heads joined"].weights == "12 x 64 = 768"
    assert boxes["logits"].weights == "768 x 50257, tied" and boxes["logits"].parameters == 0
    assert boxes["token embedding"].parameters == 38_597_376
    assert boxes["position embedding"].parameters == 786_432
    assert "block × 12: 7,087,872 parameters each, 85,054,464 together" in view.diagram()


@pytest.mark.parametrize("name", [*FAMILIES[1:], *GPT2_SIZES])
def test_boxes_add_up_to_the_model(name: str) -> None:
    config = gpt2_config(name) if name in GPT2_SIZES else tiny_config(name)
    view = look.architecture(without_weights(config, name))
    inside = sum(box.parameters for box in view.boxes if box.stack in ("attention", "feed-forward"))
    outside = sum(box.parameters for box in view.boxes) - inside
    assert inside == block_parameters(config)
    assert outside + config.n_layer * inside == config.n_params


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_has_its_own_steps(name: str) -> None:
    config = tiny_config(name)
    view = look.architecture(without_weights(config, name))
    titles = [box.title for box in view.boxes]
    assert ("position embedding" in titles) == (config.rope is None) == ("rotary positions" not in titles)
    assert ("gate" in titles) == config.gated_mlp
    assert ("RMS norm" in titles) == (config.norm == "rms")
    assert ("RMS norms of q, k" in titles) == bool(config.qk_norm)
    logits = next(box for box in view.boxes if box.title == "logits")
    assert logits.weights.endswith("tied" if config.tied_output else str(config.vocab_size))
    if config.n_kv_head != config.n_head:
        key = next(box for box in view.boxes if box.title == "key")
        assert key.output == f"(T, {config.n_kv_head * config.head_dim})"
        assert any("share one key" in note for note in view.notes)


@pytest.mark.parametrize("name", [*FAMILIES, "gpt2-xl"])
def test_a_terminal_of_80_columns_has_room(name: str) -> None:
    drawn = look.architecture(without_weights(tiny_config(name), name)).picture()[1]
    assert isinstance(drawn, Lines)
    assert max(map(len, drawn.text.splitlines())) < 80
    assert drawn.ascii.isascii() and len(drawn.ascii) == len(drawn.text)
    frame = [line for line in drawn.text.splitlines() if line.startswith("│ ") and line.endswith("│ │")]
    assert len({len(line) for line in frame}) == 1, "the open block has straight sides"
    assert not re.search(r"[^\x00-\x7f│─┌┐└┘├⊕×]", drawn.text)


@pytest.mark.parametrize("name", ["gpt2-xl", "qwen3"])
def test_the_picture_is_legible(name: str) -> None:
    figure = look.architecture(without_weights(tiny_config(name), name)).figure("dark")
    assert overlapping(figure) == []
    assert smallest_text(figure) >= 7
