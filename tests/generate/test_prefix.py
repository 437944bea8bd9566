"""PrefixCache: what is shared, what is split, what goes first, and sequences that the engine has dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.generate import PrefixCache, TokenScore
from pophood.generate.decoder import blocks_of
from tests.generate.mock import MockDecoder


def filled(engine: MockDecoder, ids: list[int], adapters: tuple[int, ...] = ()) -> int:
    sequence = engine.new_sequence(adapters)
    if ids:
        engine.logits([(sequence, ids)])
    return sequence


def kept(engine: MockDecoder, *texts: list[int], blocks: int = 100) -> PrefixCache:
    prefix = PrefixCache(engine, blocks)
    for ids in texts:
        prefix.keep(filled(engine, ids), ids)
    return prefix


@pytest.mark.parametrize(
    ("prompt", "shared"),
    [([1, 2, 3, 4, 5], 4), ([1, 2, 3, 4], 3), ([1, 2, 9], 2), ([9, 2, 3], 0), ([1], 0), ([1, 2, 3, 9, 9], 3)],
)
def test_what_is_shared_is_reused_but_for_the_last_token(prompt: list[int], shared: int) -> None:
    engine = MockDecoder()
    prefix = kept(engine, [1, 2, 3, 4])
    taken = prefix.take(prompt)
    assert (taken.length, taken.scores) == (shared, ())
    assert engine.sequences[taken.sequence] == prompt[:shared]
    engine.drop(taken.sequence)
    assert list(engine.sequences.values()) == [[1, 2, 3, 4]], "the cache keeps its own"


def test_only_what_was_computed_is_remembered() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine)
    prefix.keep(filled(engine, [1, 2]), [1, 2, 3, 4])
    assert prefix.take([1, 2, 3, 4]).length == 2


def test_several_conversations_are_kept_and_share_their_beginning() -> None:
    engine = MockDecoder(context=200)
    system = list(range(10)) * 4  # 40 tokens: a block and a part of one
    one, two = system + [11] * 30, system + [12] * 30
    prefix = kept(engine, one, two)
    assert prefix.take([*one, 1]).length == 70 and prefix.take([*two, 1]).length == 70
    assert prefix.take([*system, 13, 13]).length == 40
    assert prefix.blocks == 2 + 2 * 2, "the first block is counted once, a block that is copied twice"
    prefix.keep(filled(engine, one[:50]), one[:50])
    assert (len(prefix), prefix.blocks) == (3, 6), "a beginning of what is held adds nothing"


def test_the_least_recently_used_leaf_goes_first() -> None:
    engine = MockDecoder(context=200)
    texts = [[i] * 64 for i in range(4)]
    prefix = kept(engine, *texts[:3], blocks=6)
    prefix.take([*texts[0], 1])
    prefix.keep(filled(engine, texts[3]), texts[3])
    lengths = [prefix.take([*ids, 1]).length for ids in texts]
    assert lengths == [64, 0, 64, 64] and prefix.blocks == 6


def test_a_conversation_loses_its_end_before_its_beginning() -> None:
    engine = MockDecoder(context=200)
    first, second = [1] * 64, [1] * 64 + [2] * 64
    prefix = kept(engine, first, second)
    prefix.shrink(3)
    assert prefix.take([*second, 1]).length == 64


def test_adapters_do_not_share() -> None:
    engine = MockDecoder()
    prefix = PrefixCache(engine, 100)
    prefix.keep(filled(engine, [1, 2, 3], (7,)), [1, 2, 3])
    assert prefix.take([1, 2, 3, 4]).length == 0
    taken = prefix.take([1, 2, 3, 4], (7,))
    assert taken.length == 3 and engine.adapters_of(taken.sequence) == (7,)
    prefix.forget_adapter(7)
    assert (len(prefix), prefix.blocks) == (0, 0)
    assert prefix.take([1, 2, 3, 4], (7,)).length == 0


def scores_of(ids: list[int], top: int = 0) -> list[TokenScore]:
    """Scores that tell their place."""
    return [
        TokenScore(token, -float(i) if i else None, ((token, -float(i)),) * top)
        for i, token in enumerate(ids)
    ]


def test_scores_are_reused_where_they_are_known() -> None:
    engine = MockDecoder(context=200)
    prefix = PrefixCache(engine, 100)
    ids = [1, 2, 3, 4, 5]
    prefix.keep(filled(engine, ids), ids)
    assert prefix.take(ids, scores=0).length == 0, "keys and values alone tell no score"
    prefix.keep(filled(engine, ids), ids, scores_of(ids, 2), 2)
    taken = prefix.take([1, 2, 3, 9], scores=1)
    assert taken.length == 2, "the row after the third token is needed for a token that was never scored"
    assert list(taken.scores) == scores_of([1, 2, 3], 1)
    assert prefix.take([1, 2, 3, 9], scores=3).length == 0, "three likeliest tokens were not asked for then"
    assert prefix.take([1, 2, 3, 9]).length == 3


def test_scores_of_a_prompt_stay_with_it_when_an_answer_follows() -> None:
    engine = MockDecoder(context=200)
    prefix = PrefixCache(engine, 100)
    prefix.keep(filled(engine, [1, 2, 3, 8, 8]), [1, 2, 3, 8, 8, 8], scores_of([1, 2, 3], 1), 1)
    assert prefix.take([1, 2, 3, 8, 8, 9], scores=1).length == 2
    assert prefix.take([1, 2, 3, 8, 8, 9]).length == 5


def test_new_weights_drop_every_sequence_and_the_cache_begins_anew() -> None:
    engine = MockDecoder()
    prefix = kept(engine, [1, 2])
    engine.sequences.clear()
    taken = prefix.take([1, 2, 3])
    assert (taken.length, engine.sequences) == (0, {taken.sequence: []})
    engine.sequences.clear()
    prefix.keep(taken.sequence, [])
    prefix.keep(filled(engine, [1]), [1])
    engine.sequences.clear()
    prefix.forget()
    assert (len(prefix), prefix.blocks) == (0, 0)


texts = st.lists(st.integers(0, 2), min_size=1, max_size=90)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(texts, st.integers(0, 1), st.booleans()), min_size=1, max_size=25), st.integers(1, 9)
)
def test_any_use_returns_true_beginnings_within_the_bound(
    uses: list[tuple[list[int], int, bool]], blocks: int
) -> None:
    """Whatever is kept and taken: a sequence holds what it says, and no block is counted too little."""
    engine = MockDecoder(context=100)
    prefix = PrefixCache(engine, blocks)
    for ids, adapter, scored in uses:
        key = (adapter,) if adapter else ()
        taken = prefix.take(ids, key, 1 if scored else None)
        assert taken.length < len(ids)
        assert engine.sequences[taken.sequence] == ids[: taken.length]
        assert engine.adapters_of(taken.sequence) == key
        if scored:
            assert list(taken.scores) in ([], scores_of(ids[: taken.length + 1], 1))
            assert taken.scores or taken.length == 0
        engine.logits([(taken.sequence, ids[taken.length :])])
        prefix.keep(taken.sequence, ids, scores_of(ids, 1) if scored else (), 1)
        assert prefix.blocks <= blocks
        assert len(prefix) == len(engine.sequences)
        held = {(engine.adapters_of(i), *ids) for i, ids in engine.sequences.items()}
        distinct = {
            (ids[0], ids[1 : 1 + 32 * n + 32]) for ids in held for n in range(blocks_of(len(ids) - 1))
        }
        assert len(distinct) <= prefix.blocks
    prefix.forget()
    assert engine.sequences == {}
