"""Quality: figures computed again by hand, windows, a stop in the middle, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood.bench.quality import ROWS, Comparison, Quality, divergence, log_softmax
from pophood.errors import BadInput
from tests.bench.conftest import assert_no_sequence
from tests.tiny import tiny_gguf

IDS = [int(i) for i in np.random.default_rng(5).integers(0, 512, 150)]


@pytest.fixture(scope="module")
def q8(lm: pophood.LM) -> pophood.LM:
    return lm.at("q8")


def compared(this: pophood.LM, other: pophood.LM, ids: list[int], window: int) -> Quality:
    """Return the figures of a whole comparison."""
    comparison = Comparison(this, other, ids, window)
    steps = list(comparison.run())
    assert [step.done for step in steps] == list(range(steps[0].total)), "every step is counted"
    assert steps[0].what == f"0 of {len(ids)} tokens are compared"
    return comparison.quality()


def test_the_figures_are_those_of_all_rows_at_once(lm: pophood.LM, q8: pophood.LM) -> None:
    """Two windows of 60 and one of 30 tokens; more rows than are compared at once."""
    assert ROWS < 60
    found = compared(q8, lm, IDS, 60)
    kl, flips, losses = [], [], []
    for start in (0, 60, 120):
        ids = IDS[start : start + 60]
        p, q = (np.exp(x - x.max(-1, keepdims=True)) for x in (lm.logits(ids)[:-1], q8.logits(ids)[:-1]))
        p, q = (x.astype(np.float64) / x.sum(-1, keepdims=True, dtype=np.float64) for x in (p, q))
        kl += [float((a * np.log(a / b)).sum()) for a, b in zip(p, q, strict=True)]
        flips += [int(np.argmax(a) != np.argmax(b)) for a, b in zip(p, q, strict=True)]
        losses += [-float(np.log(row[token])) for row, token in zip(q, ids[1:], strict=True)]
    assert found.positions == len(kl) == 147 and found.window == 60 and found.complete
    assert found.kl_mean == pytest.approx(np.mean(kl), rel=1e-3) and found.kl_mean > 0
    assert found.kl_99 == pytest.approx(np.percentile(kl, 99), rel=1e-3) and found.kl_99 > found.kl_mean
    assert found.flipped == np.mean(flips)
    assert found.this.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=1e-5)
    assert found.this.perplexity == pytest.approx(q8.score(IDS, window=60).perplexity, rel=1e-5)
    assert found.other.perplexity == pytest.approx(lm.score(IDS, window=60).perplexity, rel=1e-5)
    assert (found.this.precision, found.other.precision) == ("q8", "f32")
    assert found.this.weight_bytes == q8.engine.weight_bytes
    assert_no_sequence(q8)


def test_a_model_beside_itself_differs_nowhere(lm: pophood.LM) -> None:
    found = compared(lm, lm, IDS, 512)
    assert (found.kl_mean, found.kl_99, found.flipped) == (0, 0, 0)
    assert found.this == found.other and found.window == lm.engine.context == 256


def test_a_divergence_by_hand() -> None:
    p = log_softmax(np.array([[2.0, 0.0], [0.0, 2.0]], np.float32))
    assert divergence(p, p[:, ::-1]) == pytest.approx([2 * np.tanh(1.0)] * 2, abs=1e-12)
    assert divergence(p, p).tolist() == [0, 0]


def test_a_stop_in_the_middle_keeps_the_figures_so_far(lm: pophood.LM, q8: pophood.LM) -> None:
    comparison = Comparison(q8, lm, IDS, 50)
    with pytest.raises(BadInput, match="nothing was compared yet"):
        comparison.quality()
    steps = comparison.run()
    next(steps), next(steps)
    found = comparison.quality()
    assert found.positions == 49 and not found.complete
    assert found == replace(compared(q8, lm, IDS[:50], 50), complete=False)


def test_a_window_is_never_left_with_one_token(lm: pophood.LM) -> None:
    assert compared(lm, lm, IDS[:101], 50).positions == 98, "the last token alone predicts nothing"


def test_what_cannot_be_compared(lm: pophood.LM, tmp_path: Path) -> None:
    other = pophood.load(tiny_gguf(tmp_path / "wide.gguf", "llama", vocab_size=600))
    with pytest.raises(BadInput, match=r"has a vocabulary of 512 tokens, .* one of 600: only models with"):
        Comparison(lm, other, IDS)
    with pytest.raises(BadInput, match="the text has 1 tokens; a prediction needs two"):
        Comparison(lm, lm, IDS[:1])
