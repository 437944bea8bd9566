"""Dropout as a demonstration: survivors / 0.9, the mean preserved, the model unchanged; page 26."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pophood
from pophood import look
from pophood.errors import BadInput
from pophood.look.views.dropout import MASKS, thinned
from tests.look.talk_shape import overlapping, smallest_text

PROMPT = "The capital of Spain is"


def test_the_formula_is_torchs() -> None:
    import torch

    torch.manual_seed(0)
    values = torch.randn(40, 50)
    dropped = torch.nn.functional.dropout(values, 0.1, training=True).numpy()
    assert np.allclose(thinned(values.numpy(), dropped != 0, 0.1), dropped, rtol=1e-6)


def test_zeros_survivors_and_the_mean(small: pophood.LM) -> None:
    view = look.dropout(small, PROMPT)
    assert view.p == 0.1 and view.before.shape == (5, 64)
    assert np.array_equal(view.before, small.trace(PROMPT)["blocks.0.attn.out"])
    assert abs(view.zeros - 0.1) < 5 * math.sqrt(0.1 * 0.9 / 320)
    assert np.array_equal(view.after == 0, ~view.mask)
    assert np.allclose(view.after[view.mask], view.before[view.mask] / 0.9, rtol=1e-6)
    for masks, error in zip(MASKS, view.mean_errors, strict=True):
        expected = math.sqrt(0.1 / 0.9 / masks)
        assert error < 3 * expected, masks
    assert view.mean_errors[-1] < 0.01
    facts = {row["what"]: row["value"] for row in view.tables()["mask"]}
    assert facts["survivors are multiplied by"] == pytest.approx(1 / 0.9, rel=1e-6)
    assert facts["share of zeros"] == view.zeros


def test_the_seed_decides(small: pophood.LM) -> None:
    one, two, other = (look.dropout(small, PROMPT, seed=seed) for seed in (42, 42, 43))
    assert np.array_equal(one.mask, two.mask) and one.mean_errors == two.mean_errors
    assert not np.array_equal(one.mask, other.mask)


def test_running_uses_none_and_where_gpt2_has_it(small: pophood.LM, rotary: pophood.LM) -> None:
    view = look.dropout(small, PROMPT, layer=-1)
    assert view.layer == 3 and view.same_twice and "same bits" in view.notes[1]
    places = view.tables()["places"]
    assert places.column("place") == [
        "embedding",
        "attention weights",
        "attention output",
        "feed-forward output",
    ]
    assert set(places.column("running")) == {"none"} and set(places.column("in_training")) == {0.1}
    assert "trained without" in look.dropout(rotary, PROMPT).notes[0]


def test_no_dropout_at_all(small: pophood.LM) -> None:
    view = look.dropout(small, PROMPT, p=0.0)
    assert view.zeros == 0 and np.array_equal(view.after, view.before) and max(view.mean_errors) == 0


@pytest.mark.parametrize("p", [1.0, -0.1, float("nan")])
def test_refusals(small: pophood.LM, p: float) -> None:
    with pytest.raises(BadInput, match=r"p must be at least 0 and below 1"):
        look.dropout(small, PROMPT, p=p)


def test_refusals_of_seed_and_layer(small: pophood.LM) -> None:
    with pytest.raises(BadInput, match="seed"):
        look.dropout(small, PROMPT, seed=-1)
    with pytest.raises(BadInput, match=r"layers 0\.\.3"):
        look.dropout(small, PROMPT, layer=9)


def test_the_picture(small: pophood.LM) -> None:
    figure = look.dropout(small, PROMPT).figure("dark")
    assert not overlapping(figure) and smallest_text(figure) >= 7
