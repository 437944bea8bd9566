"""Log-sum-exp, entropy and top k against float64 and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pophood.sampling.softmax import (
    Floats,
    block_sums,
    entropy,
    log_sum_exp,
    measures,
    ranked,
    top_k,
    weights,
)

ROWS = arrays(np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32))
INTEGER_ROWS = arrays(np.float32, st.integers(1, 60), elements=st.integers(-3, 3).map(float))


def row_of(size: int, seed: int = 0) -> Floats:
    return (np.random.default_rng(seed).standard_normal(size) * 4).astype(np.float32)


@given(ROWS)
def test_measures_agree_with_float64(logits: Floats) -> None:
    exact = logits.astype(np.float64)
    probabilities = np.exp(exact - exact.max()) / np.exp(exact - exact.max()).sum()
    log_mass, mean_surprise = measures(logits)
    assert log_mass == pytest.approx(exact.max() + math.log(np.exp(exact - exact.max()).sum()), abs=1e-5)
    assert mean_surprise == pytest.approx(-(probabilities * np.log(probabilities)).sum(), abs=1e-5)
    assert log_sum_exp(logits) == pytest.approx(log_mass, abs=1e-6)


@pytest.mark.parametrize("size", [511, 512, 513, 16_384, 16_385, 50_257])
def test_blocks_sum_to_the_weights(size: int) -> None:
    logits = row_of(size)
    blocks = block_sums(logits)
    assert len(blocks) == -(-size // 512)
    exact = np.exp(logits.astype(np.float64) - logits.max())
    np.testing.assert_allclose(blocks, np.add.reduceat(exact, np.arange(0, size, 512)), rtol=1e-6)
    np.testing.assert_allclose(weights(logits), exact, rtol=1e-5, atol=1e-12)


def test_certainty_and_impossible_tokens() -> None:
    certain = np.array([-np.inf, 1000, -np.inf], dtype=np.float32)
    assert measures(certain) == (1000.0, 0.0)
    assert entropy(np.zeros(8, dtype=np.float32)) == pytest.approx(math.log(8))
    assert entropy(np.array([-1e38, 1e38], dtype=np.float32)) == 0.0


@given(INTEGER_ROWS, st.integers(1, 70))
def test_top_k_takes_the_lowest_ids_of_equal_logits(logits: Floats, k: int) -> None:
    by_hand = sorted(sorted(range(len(logits)), key=lambda i: (-logits[i], i))[:k])
    assert top_k(logits, k).tolist() == by_hand


@settings(max_examples=40)
@given(st.integers(3_000, 20_000), st.integers(1, 60), st.integers(0, 2**32), st.sampled_from([0.01, 4.0]))
def test_top_k_of_a_large_row(size: int, k: int, seed: int, scale: float) -> None:
    logits = (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)
    logits = np.round(logits, 1).astype(np.float32)  # many equal ones
    by_sorting = np.argsort(-logits, kind="stable")[:k]
    assert top_k(logits, k).tolist() == sorted(by_sorting.tolist())
    assert ranked(logits, k).tolist() == by_sorting.tolist()


def test_impossible_tokens_rank_last() -> None:
    logits = np.array([-np.inf, 2, -np.inf, 5], dtype=np.float32)
    assert ranked(logits, 4).tolist() == [3, 1, 0, 2]
