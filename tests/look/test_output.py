"""The output layer by hand equals the engine, the library and transformers; the talk's page 32."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput, ContextOverflow
from tests.look.seen import ODD, faults
from tests.tiny import reference

PROMPT = "The capital of Spain is"


def test_hidden_times_output_matrix_is_the_logits(small: pophood.LM) -> None:
    view = look.output(small, PROMPT)
    assert view.shape == (64, 50_257) and view.hidden.shape == (64,) and view.tied
    assert view.difference <= 1e-3
    assert np.abs(view.logits - small.logits(PROMPT)[-1]).max() <= 1e-3
    steps = {str(row["step"]): row["value"] for row in view.tables()["steps"]}
    assert steps["W_O"] == "(64, 50257)" and "tied" in str(steps["W_O is the token embedding again"])
    assert "within 0.001" in " ".join(view.notes)


def test_a_wrong_engine_would_show(small: pophood.LM) -> None:
    from dataclasses import replace

    view = look.output(small, PROMPT)
    off = replace(view, engine_logits=view.engine_logits + np.float32(0.01))
    assert off.difference == pytest.approx(0.01, rel=1e-2) and "MORE than 0.001" in " ".join(off.notes)


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_softmax_by_hand_is_torchs(which: str, request: pytest.FixtureRequest) -> None:
    import torch

    folder: Path = request.getfixturevalue(f"{which}_folder")
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.output(lm, PROMPT, k=7)
    with torch.no_grad():
        logits = reference(folder)(torch.tensor([lm.tokenize(PROMPT)])).logits[0, -1]
    assert np.abs(view.logits - logits.numpy()).max() <= 1e-3
    wanted = torch.softmax(logits.double(), -1)
    for token in view.top:
        assert token.probability == pytest.approx(float(wanted[token.id]), abs=1e-5)
        assert token.library == pytest.approx(token.probability, rel=1e-4)
        assert token.exponential / view.total == token.probability
    assert view.greedy.id == int(logits.argmax()) == view.top[0].id
    assert view.tied == lm.config.tied_output


def test_the_smallest_softmax_one_can_do_by_hand() -> None:
    unembed = importlib.import_module("pophood.look.math.unembed").Unembed
    two = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]], np.float32)
    layer = unembed(two, np.array([2, 2], np.float32), np.array([1, 0], np.float32), 0.0)
    normed = layer.norm(np.array([[1.0, 3.0]], np.float32))  # mean 2, variance 1: -1 and 1
    assert normed.tolist() == [[-1.0, 2.0]]
    assert layer.logits(normed).tolist() == [[3.0, 5.0, 2.0]]
    rms = unembed(two, np.array([1, 1], np.float32), None, 0.0)
    assert np.allclose(rms.norm(np.array([[3.0, 4.0]], np.float32)), np.array([[3, 4]]) / np.sqrt(12.5))


def test_on_the_real_model(smol: pophood.LM) -> None:
    view = look.output(smol)
    assert view.greedy.text == " Madrid" and view.difference <= 1e-3 and view.shape == (576, 49_152)
    assert view.softmax_difference <= 1e-5
    assert '" Madrid"' in view.title and '" Madrid"' in view.alt


@pytest.mark.parametrize(
    ("text", "k", "error", "words"),
    [
        ("", 10, BadInput, "the text is empty"),
        ("a " * 200, 10, ContextOverflow, "window holds 128: shorten"),
        (PROMPT, 0, BadInput, r"k must be 1\.\.50,257, got 0"),
    ],
)
def test_one_line_for_each_mistake(
    small: pophood.LM, text: str, k: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        look.output(small, text, k=k)


def test_the_picture_is_legible(small: pophood.LM) -> None:
    assert not faults(look.output(small, ODD, k=20).figure("dark"))
