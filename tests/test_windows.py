"""Attention windows and memory: what is freed, what is computed again, and that no bit depends on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pophood.config import BlockAttention, Rope
from pophood.errors import BadInput
from pophood.generate.decoder import BLOCK, KV_SLACK, KvBlocks, blocks_of
from pophood.model.engine import Edit, Engine
from pophood.model.memory import plan_memory
from tests.test_engine import Random
from tests.tiny import tiny_config

WINDOW = 40
LONG = 2_048
Logits = NDArray[np.float32]


def windowed(pattern: str = "wfw", window: int = WINDOW, **options: Any) -> Engine:
    """Return an engine whose blocks have windows ("w") or see everything ("f")."""
    rope = Rope()
    attention = tuple(BlockAttention(window if kind == "w" else None, rope) for kind in pattern)
    config = replace(
        tiny_config("llama", n_layer=len(pattern)), n_positions=LONG, rope=rope, attention=attention
    )
    engine = Engine(config, threads=1, **options)
    engine.load(Random(config))
    return engine


def text(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 90, length)]


def neutral(position: int) -> Edit:
    """Return an edit that changes nothing, after which a sequence frees nothing."""
    return Edit("blocks.0.resid_pre", "scale", 1.0, positions=[position])


class Fresh:
    """The logits of texts, each from one sequence without freeing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[int, ...], Logits] = {}

    def __call__(self, ids: Sequence[int]) -> Logits:
        key = tuple(ids)
        if key not in self._known:
            with self._engine.sequence() as sequence:
                whole = self._engine.forward([(sequence, ids)], rows="all", edits=[neutral(0)]).output
                assert self._engine.export_kv(sequence).windows_from == 0
            for end in range(1, len(key) + 1):
                self._known.setdefault(key[:end], whole[end - 1])
        return self._known[key]


@pytest.fixture(scope="module", params=["wfw", "ww"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return windowed(request.param)


def test_keys_outside_the_window_are_freed(engine: Engine) -> None:
    with engine.sequence() as sequence:
        for length in (1, 32, 300, 7, 600, 1):
            engine.forward([(sequence, text(length))], output="none")
            now = engine.length(sequence)
            first = max(now + 1 - WINDOW - KV_SLACK, 0) // BLOCK * BLOCK
            assert engine.export_kv(sequence).windows_from == first
            assert engine.resumable(sequence, now) == now
            assert engine.resumable(sequence, now - 1) == now - 1
            assert engine.resumable(sequence, max(now - KV_SLACK - WINDOW - BLOCK, 0)) in (0, 1)


STEP = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 90)),
    st.tuples(st.just("append"), st.integers(0, 3), st.integers(300, 420)),
    st.tuples(st.just("fork"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("truncate"), st.integers(0, 3), st.floats(0, 1)),
    st.tuples(st.just("drop"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("copy"), st.integers(0, 3), st.floats(0, 1)),
    st.tuples(st.just("edit"), st.integers(0, 3), st.integers(1, 40)),
    st.tuples(st.just("forget"), st.integers(0, 3), st.just(0)),
)


@given(program=st.lists(STEP, min_size=4, max_size=14), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_programs_give_the_bits_of_a_model_that_frees_nothing(
    engine: Engine, program: list[tuple[str, int, Any]], seed: int
) -> None:
    fresh, base = Fresh(engine), text(LONG, seed)
    held: list[tuple[int, list[int]]] = [(engine.new_sequence(), [])]
    try:
        for number, (what, which, amount) in enumerate(program):
            sequence, ids = held[which % len(held)]
            if what in ("append", "edit"):
                new = text(min(amount, LONG - 8 - len(ids)), 10 * seed + number) if number % 2 else None
                new = base[len(ids) : min(len(ids) + amount, LONG - 8)] if new is None else new
                if new:
                    edits = [neutral(len(ids))] if what == "edit" else []
                    got = engine.forward([(sequence, new)], edits=edits).output[0]
                    ids += new
                    assert np.array_equal(got, fresh(ids))
            elif what == "fork" and len(held) < 4:
                held.append((engine.fork(sequence), list(ids)))
            elif what == "truncate":
                engine.truncate(sequence, int(amount * len(ids)))
                del ids[int(amount * len(ids)) :]
            elif what == "drop" and len(held) > 1:
                held.pop(which % len(held))
                engine.drop(sequence)
            elif what == "copy" and len(held) < 4 and engine.export_kv(sequence).positions:
                length = int(amount * len(ids))
                held.append((engine.import_kv(engine.export_kv(sequence, length)), ids[:length]))
            elif what == "forget":
                engine.forget_windows(sequence)
        for sequence, ids in held:
            got = engine.logits([(sequence, [7])])[0]
            assert np.array_equal(got, fresh([*ids, 7]))
    finally:
        for sequence, _ in held:
            engine.drop(sequence)


def test_a_fork_at_every_50th_token_equals_a_fresh_run(engine: Engine) -> None:
    ids, fresh = text(2_000), Fresh(engine)
    with engine.sequence() as sequence:
        engine.forward([(sequence, ids)], output="none")
        for end in range(0, 2_000, 50):
            fork = engine.fork(sequence)
            engine.truncate(fork, end)
            got = engine.logits([(fork, ids[end : end + 3])])[0]
            engine.drop(fork)
            assert np.array_equal(got, fresh(ids[: end + 3])), end


@pytest.mark.parametrize("kv", ["f32", "f16", "q8"])
@pytest.mark.parametrize("pattern", ["wfw", "ww", "wwfwwf", "ff"])
def test_memory_is_as_planned(pattern: str, kv: str) -> None:
    own = windowed(pattern, window=256, kv=kv)
    plan = plan_memory(own.config, lambda _: "F32", kv=kv)
    for length in (1, 500, LONG):
        own = windowed(pattern, window=256, kv=kv)
        with own.sequence() as sequence:
            own.forward([(sequence, text(length))], output="none")
            assert plan.cache(length) == own.cache_bytes
            assert plan.full - plan.least == plan.cache(LONG) - plan.cache(1)


def test_an_edit_of_attention_outside_the_window_recomputes(engine: Engine) -> None:
    ids = text(900)
    tap = "blocks.0.attn.pattern"
    edit = Edit(tap, "replace", np.full(901, 1 / 901, np.float32), positions=[900])
    with engine.sequence() as one, engine.sequence() as other:
        engine.forward([(one, ids)], output="none", edits=[neutral(0)])
        engine.forward([(other, ids)], output="none")
        got = [engine.forward([(sequence, [5])], edits=[edit]).output for sequence in (one, other)]
        assert np.array_equal(got[0], got[1])
        assert np.array_equal(engine.logits([(one, [6, 7])]), engine.logits([(other, [6, 7])]))


def test_what_cannot_be_computed_again_is_refused() -> None:
    engine = windowed()
    with engine.sequence() as sequence:
        engine.forward([(sequence, text(900))], output="none")
        engine.forward([(sequence, text(5))], output="none", edits=[neutral(900)])
        edit = Edit("blocks.0.attn.pattern", "scale", 0.5, positions=[905])
        with pytest.raises(BadInput, match="cannot be computed again"):
            engine.forward([(sequence, [5])], edits=[edit])
        state = engine.export_kv(sequence)
        assert state.tokens is not None and state.tokens[899] >= 0 > state.tokens[900]
        with pytest.raises(BadInput, match="do not have these tokens"):
            engine.import_kv(replace(state, tokens=state.tokens[1:]))


def test_reading_attention_needs_no_freed_keys(engine: Engine) -> None:
    ids = text(700)
    taps = ["blocks.0.attn.scores", "blocks.0.attn.pattern"]
    with engine.sequence() as one, engine.sequence() as other:
        engine.forward([(one, ids)], output="none", edits=[neutral(0)])
        engine.forward([(other, ids)], output="none")
        read = [engine.forward([(sequence, [3, 4])], taps=taps).taps for sequence in (one, other)]
        for name in taps:
            assert np.array_equal(read[0][name], read[1][name])
        assert not read[0][taps[1]][..., : 701 - WINDOW - 1].any()


def test_counts_of_blocks() -> None:
    counts = KvBlocks.of(windowed("wwwf", window=64).config)
    assert counts == KvBlocks(4, 3, 64)
    assert counts.held(2_048) == -(-(64 + 3 * 6) // 4)
    assert counts.held(100) == counts.computed(100) == blocks_of(100)
    assert KvBlocks(4).computed(2_048, 64) == KvBlocks(4).held(2_048, 64) == 62
    for blocks in (1, 20, 23, 24, 100):
        longest = counts.longest(blocks)
        assert counts.computed(longest) <= blocks < counts.computed(longest + BLOCK)
