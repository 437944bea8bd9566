"""PrefixCache: who owns the sequence, what is shared, and sequences that the engine has dropped."""

from __future__ import annotations

import pytest

from pophood.generate import PrefixCache
from tests.generate.mock import MockDecoder


def filled(engine: MockDecoder, ids: list[int]) -> int:
    sequence = engine.new_sequence()
    engine.logits([(sequence, ids)])
    return sequence


@pytest.mark.parametrize(
    ("prompt", "shared"),
    [([1, 2, 3, 4, 5], 4), ([1, 2, 3, 4], 3), ([1, 2, 9], 2), ([9, 2, 3], 0), ([1], 0), ([1, 2, 3, 9, 9], 3)],
)
def test_what_is_shared_is_reused_but_for_the_last_token(prompt: list[int], shared: int) -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1, 2, 3, 4]), [1, 2, 3, 4])
    sequence, reused = prefix.take(prompt)
    assert reused == shared
    assert engine.sequences == {sequence: prompt[:shared]}
    assert prefix.ids == ()


def test_only_what_was_computed_is_remembered() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1, 2]), [1, 2, 3, 4])
    assert prefix.ids == (1, 2)


def test_a_taken_sequence_is_not_taken_twice() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1, 2, 3]), [1, 2, 3])
    first, _ = prefix.take([1, 2, 3])
    second, reused = prefix.take([1, 2, 3])
    assert (first != second, reused) == (True, 0)


def test_keeping_another_drops_the_first() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1]), [1])
    second = filled(engine, [2])
    prefix.keep(second, [2])
    assert set(engine.sequences) == {second}
    prefix.forget()
    prefix.forget()
    assert engine.sequences == {}


def test_new_weights_drop_every_sequence_and_the_cache_begins_anew() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1, 2]), [1, 2])
    engine.sequences.clear()
    sequence, reused = prefix.take([1, 2, 3])
    assert (reused, engine.sequences) == (0, {sequence: []})
    prefix.keep(sequence, [])
    engine.sequences.clear()
    prefix.forget()
