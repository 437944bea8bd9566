"""Penalties and DRY by hand, and DRY against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pophood.sampling.penalties import breakers_of, dry_penalty, last, penalise, repeat_lengths

TEXTS = st.lists(st.integers(0, 3), max_size=40)


def by_definition(history: list[int], shortest: int, limit: int) -> dict[int, int]:
    """Compare the tokens before every earlier place with the newest ones."""
    found: dict[int, int] = {}
    for place in range(1, len(history)):
        length = 0
        while length < place and length < limit and history[place - 1 - length] == history[-1 - length]:
            length += 1
        if length >= shortest:
            found[history[place]] = max(length, found.get(history[place], 0))
    return found


def test_the_window_is_the_newest_tokens() -> None:
    assert last([1, 2, 3], 2).tolist() == [2, 3]
    assert last([1, 2, 3], 9).tolist() == [1, 2, 3]
    assert last([1, 2, 3], -1).tolist() == [1, 2, 3]
    assert last([1, 2, 3], 0).tolist() == []


def test_penalties_by_hand() -> None:
    logits = np.array([2, -2, 1, 0], dtype=np.float32)
    used, counts = np.array([0, 1, 3]), np.array([1, 3, 2])
    assert penalise(logits, used, counts, 2.0, 0.0, 0.0).tolist() == [1, -4, 1, 0]
    assert penalise(logits, used, counts, 1.0, 0.5, 0.0).tolist() == [1.5, -2.5, 1, -0.5]
    assert penalise(logits, used, counts, 1.0, 0.0, 0.5).tolist() == [1.5, -3.5, 1, -1]
    assert logits.tolist() == [2, -2, 1, 0]


def test_dry_by_hand() -> None:
    a, b, c, y = 1, 2, 3, 9
    # llama.cpp's example: "a b c c b c y a b c": after "a b c" came c, after "c" b, after "b c" y
    history = np.array([a, b, c, c, b, c, y, a, b, c])
    assert repeat_lengths(history, 1, 99, {}) == {c: 3, b: 1, y: 2}
    assert repeat_lengths(history, 2, 99, {}) == {c: 3, y: 2}
    assert repeat_lengths(history, 2, 2, {}) == {c: 2, y: 2}
    assert repeat_lengths(history, 4, 99, {}) == {}


def test_a_breaker_limits_the_repeat() -> None:
    history = np.array([1, 7, 2, 3, 5, 1, 7, 2, 3])
    assert repeat_lengths(history, 1, 99, {}) == {5: 4}
    assert repeat_lengths(history, 1, 99, {7: [()]}) == {5: 2}
    assert repeat_lengths(history, 3, 99, {7: [()]}) == {}
    assert repeat_lengths(history, 1, 99, {3: [()]}) == {}
    assert repeat_lengths(history, 1, 99, {7: [(2,)]}) == {5: 1}  # a breaker of two tokens: 7 2
    assert repeat_lengths(history, 1, 99, {7: [(3,)]}) == {5: 4}  # 7 3 does not occur
    assert repeat_lengths(history, 1, 99, {7: [(), (2,)]}) == {5: 1}  # the longest match counts


@given(TEXTS, st.integers(1, 4), st.integers(1, 12))
def test_repeats_are_what_the_definition_says(history: list[int], shortest: int, longest: int) -> None:
    expected = by_definition(history, shortest, longest) if longest >= shortest else {}
    assert repeat_lengths(np.array(history, dtype=np.int64), shortest, longest, {}) == expected


@given(TEXTS, st.integers(1, 3), st.integers(0, 3))
def test_breakers_bound_the_definition(history: list[int], shortest: int, breaker: int) -> None:
    since = history[::-1].index(breaker) if breaker in history else len(history)
    expected = by_definition(history, shortest, since) if since >= shortest else {}
    assert repeat_lengths(np.array(history, dtype=np.int64), shortest, 99, {breaker: [()]}) == expected


def test_the_penalty_grows_with_the_length_and_stays_finite() -> None:
    assert dry_penalty(2, 0.8, 1.75, 2) == pytest.approx(0.8)
    assert dry_penalty(4, 0.8, 1.75, 2) == pytest.approx(0.8 * 1.75**2)
    assert dry_penalty(10_000, 1.0, 4.0, 2) == 1e30
    assert dry_penalty(10_000, 0.5, 1.0, 2) == 0.5


def test_breakers_are_found_in_and_across_tokens() -> None:
    vocabulary = [b"a", b"\n", b".\n", b"ab", b"b", b"ba", b"xa"]
    encoded = {"b": [4], "\n": [1]}
    assert breakers_of(["\n"], vocabulary, encoded.__getitem__) == ((1,), (2,))
    # "ab" is in token 3; tokens 0, 5 and 6 end in its beginning "a", and "b" must follow
    assert breakers_of(["ab"], vocabulary, encoded.__getitem__) == ((0, 4), (3,), (5, 4), (6, 4))
    assert breakers_of([""], vocabulary, encoded.__getitem__) == ()
