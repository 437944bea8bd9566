"""Five steps that reproduce attn.out, patterns equal to transformers', labels; the talk's page 27."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from tests.look.talk_shape import overlapping, smallest_text, talk_model
from tests.tiny import tiny_folder

PROMPT = "The capital of Spain is"


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    """A Qwen3: two query heads for each key and value head, norms on both, rotary positions."""
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("grouped") / "qwen", "qwen3", seed=5))


@pytest.mark.parametrize("which", ["small", "rotary", "grouped"])
def test_five_steps_reproduce_the_engine(which: str, request: pytest.FixtureRequest) -> None:
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.attention(lm, PROMPT, layer=1)
    assert max(view.steps.differences) <= 1e-4
    config, tokens = lm.config, len(view.source.ids)
    assert view.pattern.shape == (config.n_head, tokens, tokens)
    assert np.allclose(view.pattern.sum(-1), 1, atol=1e-6)
    assert (view.pattern[:, *np.triu_indices(tokens, 1)] == 0).all(), "masked positions are exactly 0"
    assert np.isneginf(view.steps.masked[:, *np.triu_indices(tokens, 1)]).all()
    trace = lm.trace(PROMPT, ["blocks.1.attn.pattern", "blocks.1.attn.out"])
    assert (trace["blocks.1.attn.pattern"][:, *np.triu_indices(tokens, 1)] == 0).all()
    assert np.abs(view.steps.out - trace["blocks.1.attn.out"]).max() == view.steps.differences[-1]


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_patterns_are_transformers(which: str, request: pytest.FixtureRequest) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder: Path = request.getfixturevalue(f"{which}_folder")
    lm: pophood.LM = request.getfixturevalue(which)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    view = look.attention(lm, PROMPT, layer=-1)
    with torch.no_grad():
        wanted = model(torch.tensor([view.source.ids]), output_attentions=True).attentions[-1][0].numpy()
    assert np.abs(view.pattern - wanted).max() <= 1e-4


@pytest.mark.parametrize(("tap", "step"), [("scores", 0), ("pattern", 2), ("z", 3), ("out", 4)])
def test_a_wrong_step_shows(small: pophood.LM, monkeypatch: pytest.MonkeyPatch, tap: str, step: int) -> None:
    whole = pophood.LM.trace

    def off(self: pophood.LM, text: Any, taps: Any) -> Any:
        trace = whole(self, text, taps)
        if "blocks.0.attn.scores" in trace.arrays:  # not the run that measures heads
            trace.arrays[f"blocks.0.attn.{tap}"] = trace[f"blocks.0.attn.{tap}"] + np.float32(0.25)
        return trace

    monkeypatch.setattr(pophood.LM, "trace", off)
    differences = look.attention(small, PROMPT, layer=0).steps.differences
    assert differences[step] == pytest.approx(0.25, rel=1e-2)
    assert all(value < 1e-4 for i, value in enumerate(differences) if i != step)


def test_the_talks_numbers_and_words(tmp_path_factory: pytest.TempPathFactory) -> None:
    view = look.attention(talk_model(tmp_path_factory), head=3)
    steps = view.tables()["steps"]
    assert steps.column("name") == ["scores", "mask", "softmax", "concatenation", "projection"]
    assert "12 x 64 = 768" in str(steps[3]["computed"]) and steps[3]["shape"] == "(5, 768)"
    assert steps[0]["shape"] == "(12, 5, 5)" and max(view.steps.differences) <= 1e-4
    assert '"12 different linguists" is an intuition' in view.notes[0]
    weights = view.tables()["weights"]
    assert weights.column("token_text") == ["The", " capital", " of", " Spain", " is"]
    assert weights.column("weight") == [float(x) for x in view.pattern[3, -1]]


def test_labels_of_the_block_and_of_the_model(small: pophood.LM) -> None:
    view = look.attention(small, PROMPT, layer=2)
    assert view.head == int(view.probe.values[2].max(-1).argmax()), "the most clearly labelled head is large"
    tables = view.tables()
    assert len(tables["labels"]) == 4 * 4 and len(tables["heads"]) == 4
    assert tables["heads"][1]["label"] == tables["labels"][2 * 4 + 1]["label"] == view.probe.label(2, 1)
    assert tables["heads"][1]["induction"] == float(view.probe.values[2, 1, 3])
    assert np.isnan(view.visible(0)[0, 1:]).all() and not np.isnan(view.visible(0)[-1]).any()
    assert set(view.arrays()) == {"scores", "pattern", "z", "out", "head_scores"}


def test_what_differs_in_other_builds_is_said(grouped: pophood.LM, rotary: pophood.LM) -> None:
    notes = " ".join(look.attention(grouped, PROMPT).notes)
    assert "4 query heads share 2 heads of keys and values (2 each)" in notes and "rotary" in notes
    assert "share" not in " ".join(look.attention(rotary, PROMPT).notes)


def test_one_token(small: pophood.LM) -> None:
    view = look.attention(small, "a")
    assert view.pattern.ravel().tolist() == [1] * 4 and view.strongest() == (0, 0, 1)


def test_refusals_list_what_exists(small: pophood.LM) -> None:
    with pytest.raises(BadInput, match=r"no layer 12: .* has layers 0\.\.3"):
        look.attention(small, PROMPT, layer=12)
    with pytest.raises(BadInput, match=r"no head 4: every block of .* has heads 0\.\.3"):
        look.attention(small, PROMPT, head=4)
    with pytest.raises(BadInput, match="empty"):
        look.attention(small, "")


@pytest.mark.parametrize("tokens", [5, pytest.param(100, marks=pytest.mark.full)])
def test_the_picture(small: pophood.LM, tokens: int) -> None:
    text = PROMPT if tokens == 5 else "the cat sat on a mat and " * (tokens // 7)
    figure = look.attention(small, text, layer=1, head=2).figure()
    assert not overlapping(figure) and smallest_text(figure) >= 7
    maps = [axes for axes in figure.axes if axes.images]
    assert len(maps) == 1 + 4  # the large head, and every head of the block


def test_real_heads_make_sense(smol: pophood.LM) -> None:
    view = look.attention(smol, layer=1, head=0)
    assert view.probe.label(1, 0) == "previous token" and "previous token" in view.title
    assert "9 query heads share 3" in " ".join(view.notes)
    assert max(view.steps.differences) <= 1e-4 * max(1.0, float(np.abs(view.steps.scores).max()))
