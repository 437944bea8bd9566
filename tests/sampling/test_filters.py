"""Filters: results by hand on a few numbers, and properties that hold for all numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from pophood.sampling.filters import min_p, top_k, top_p, typical, xtc
from pophood.sampling.softmax import Floats, weights

ROWS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-20, 20, width=32))
SHARES = st.floats(0, 1)


def logs(*probabilities: float) -> Floats:
    row: Floats = np.log(np.array(probabilities, dtype=np.float32))
    return row


def probabilities_of(logits: Floats) -> NDArray[np.float64]:
    row = weights(logits).astype(np.float64)
    probabilities: NDArray[np.float64] = row / row.sum()
    return probabilities


@pytest.mark.parametrize(
    ("k", "kept"), [(1, [1]), (2, [1, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_by_hand(k: int, kept: list[int]) -> None:
    assert top_k(np.array([2, 5, 4, 1], dtype=np.float32), k).tolist() == kept


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.0, [1]),
        (0.45, [1]),
        (0.55, [1, 3]),
        (0.75, [1, 3]),
        (0.85, [0, 1, 3]),
        (0.99, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_top_p_by_hand(p: float, kept: list[int]) -> None:
    assert top_p(logs(0.15, 0.5, 0.05, 0.3), p).tolist() == kept


def test_top_p_takes_the_lowest_ids_of_equal_tokens() -> None:
    assert top_p(np.zeros(4, dtype=np.float32), 0.6).tolist() == [0, 1, 2]
    assert top_p(np.zeros(10_000, dtype=np.float32), 0.25).tolist() == list(range(2_500))


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.0, [0, 1, 2, 3]), (0.09, [0, 1, 2, 3]), (0.11, [0, 1, 3]), (0.31, [1, 3]), (0.61, [1]), (1.0, [1])],
)
def test_min_p_by_hand(p: float, kept: list[int]) -> None:
    assert min_p(logs(0.15, 0.5, 0.05, 0.3), p).tolist() == kept


def test_typical_by_hand() -> None:
    # entropy of 0.5, 0.25, 0.125, 0.125 is 1.213 nats; surprisals 0.693, 1.386, 2.079, 2.079
    # distances 0.520, 0.173, 0.866, 0.866: the order is 1, 0, 2, 3
    row = logs(0.5, 0.25, 0.125, 0.125)
    assert typical(row, 0.2).tolist() == [1]
    assert typical(row, 0.3).tolist() == [0, 1]
    assert typical(row, 0.8).tolist() == [0, 1, 2]
    assert typical(row, 0.9).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(0.45, [0, 1, 2, 3]), (0.35, [0, 1, 2, 3]), (0.25, [0, 2, 3]), (0.1, [0, 2]), (0.0, [2])],
)
def test_xtc_by_hand(threshold: float, kept: list[int]) -> None:
    assert xtc(logs(0.15, 0.5, 0.05, 0.3), threshold).tolist() == kept


def test_xtc_drops_the_lowest_ids_of_equal_top_choices() -> None:
    assert xtc(np.array([3, 0, 3, 3, -9], dtype=np.float32), 0.2).tolist() == [1, 3, 4]


@given(ROWS, SHARES, SHARES)
def test_kept_sets_are_nested(logits: Floats, a: float, b: float) -> None:
    low, high = sorted((a, b))
    for keep, narrow, wide in ((top_p, low, high), (typical, low, high), (min_p, high, low)):
        assert set(keep(logits, narrow).tolist()) <= set(keep(logits, wide).tolist())
    assert set(top_k(logits, 3).tolist()) <= set(top_k(logits, 5).tolist())


@given(ROWS, SHARES)
def test_something_is_always_kept_in_ascending_order(logits: Floats, p: float) -> None:
    for kept in (
        top_p(logits, p),
        typical(logits, p),
        min_p(logits, p),
        xtc(logits, p / 2),
        top_k(logits, 1),
    ):
        assert len(kept) >= 1
        assert np.all(np.diff(kept) > 0)
        assert 0 <= kept[0] <= kept[-1] < len(logits)


@given(ROWS, st.floats(0.01, 0.999))
def test_top_p_is_the_smallest_set_that_reaches_p(logits: Floats, p: float) -> None:
    kept = top_p(logits, p)
    probabilities = probabilities_of(logits)
    assert probabilities[kept].sum() >= p - 1e-6
    if len(kept) > 1:
        assert probabilities[kept].sum() - probabilities[kept].min() < p + 1e-6
    if len(kept) < len(logits):
        assert probabilities[kept].min() >= np.delete(probabilities, kept).max()


@given(ROWS, st.integers(1, 40), SHARES)
def test_top_k_and_min_p_may_change_places(logits: Floats, k: int, p: float) -> None:
    first_k = top_k(logits, k)
    first_p = min_p(logits, p)
    assert first_k[min_p(logits[first_k], p)].tolist() == first_p[top_k(logits[first_p], k)].tolist()


@given(ROWS, SHARES)
def test_adding_a_constant_to_the_logits_changes_nothing(logits: Floats, p: float) -> None:
    whole = np.round(logits)
    for keep in (top_p, typical, min_p):
        assert keep(whole, p).tolist() == keep(whole + np.float32(8), p).tolist()


@settings(max_examples=30)
@given(st.integers(2_500, 9_000), st.floats(0.5, 6), st.floats(0.05, 0.99), st.integers(0, 2**32))
def test_large_rows_give_what_sorting_gives(size: int, scale: float, p: float, seed: int) -> None:
    # over 2,048 entries a histogram replaces the sort
    logits = (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)
    probabilities = probabilities_of(logits)
    surprise = -np.log(probabilities)
    distance = np.abs(surprise - (probabilities * surprise).sum())
    for keep, cost in ((top_p, surprise), (typical, distance)):
        order = np.argsort(cost, kind="stable")
        count = int(np.searchsorted(np.cumsum(probabilities[order]), p)) + 1
        differing = set(keep(logits, p).tolist()) ^ set(order[:count].tolist())
        assert len(differing) <= 3  # float32 may move the border by a token or swap two there
        assert all(abs(cost[i] - cost[order[count - 1]]) < 1e-3 for i in differing)


def test_impossible_tokens_stay_out() -> None:
    logits = np.array([-np.inf, 1, -np.inf, 0.5], dtype=np.float32)
    assert top_p(logits, 0.999).tolist() == [1, 3]
    assert min_p(logits, 1e-30).tolist() == [1, 3]
    assert typical(logits, 0.999).tolist() == [1, 3]
    assert math.isfinite(weights(logits).sum())
