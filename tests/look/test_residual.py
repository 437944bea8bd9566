"""The vectors that sublayers add: lengths, cosines, and sums that are checked; the talk's page 25."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import pophood
from pophood import look
from tests.look.talk_shape import overlapping, smallest_text

PROMPT = "The capital of Spain is"


@pytest.mark.parametrize("which", ["small", "rotary"])
def test_the_residual_adds_up(which: str, request: pytest.FixtureRequest) -> None:
    lm: pophood.LM = request.getfixturevalue(which)
    view = look.residual(lm, PROMPT)
    assert view.errors.shape == (2, lm.config.n_layer) and view.errors.max() <= 1e-3
    trace = lm.trace(PROMPT)
    for layer in range(lm.config.n_layer):
        block = f"blocks.{layer}"
        for s, (x, dx) in enumerate((("resid_pre", "attn.out"), ("resid_mid", "mlp.out"))):
            a, b = trace[f"{block}.{x}"], trace[f"{block}.{dx}"]
            lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
            assert np.allclose(view.share[s, layer], lengths[1] / lengths[0], rtol=1e-4)
            assert np.allclose(view.cosine[s, layer], (a * b).sum(1) / lengths[0] / lengths[1], atol=1e-4)


def test_a_sum_that_fails_shows(small: pophood.LM, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pophood.LM.trace

    def off(self: pophood.LM, text: Any, taps: Any) -> Any:
        trace = whole(self, text, taps)
        trace.arrays["blocks.1.resid_mid"][2, 3] += 0.5
        return trace

    monkeypatch.setattr(pophood.LM, "trace", off)
    view = look.residual(small, PROMPT)
    assert view.errors[0, 1] == pytest.approx(0.5, abs=1e-3) and view.errors[0, 0] < 1e-3
    assert "5.0e-01" in view.notes[0]


def test_tables_words_and_colours(small: pophood.LM) -> None:
    view = look.residual(small, PROMPT)
    tables = view.tables()
    assert len(tables["layers"]) == 8 and len(tables["tokens"]) == 40
    row = tables["layers"][3]
    assert (row["layer"], row["sublayer"]) == (1, "feed-forward")
    assert row["share"] == float(np.median(view.share[1, 1]))
    assert "X_new = X + dX" in view.title and "4 blocks" in view.alt
    low, high = view.limits()
    assert low == -high and high == max(float(np.abs(view.log_share(s)[1:]).max()) for s in range(2))
    assert view.arrays()["cosine"].shape == (2, 4, 5)


def test_a_single_token(small: pophood.LM) -> None:
    view = look.residual(small, "a")
    assert view.share.shape == (2, 4, 1) and view.limits()[1] > 0


def test_the_picture(small: pophood.LM) -> None:
    figure = look.residual(small, PROMPT).figure()
    assert not overlapping(figure) and smallest_text(figure) >= 7
    assert len(figure.axes) == 5  # two line plots, two maps, one key for both
