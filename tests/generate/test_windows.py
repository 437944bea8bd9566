"""The prefix cache and the scheduler on a model with attention windows: what is kept, and no bit differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pophood
from pophood.config import BlockAttention
from pophood.generate import GenerateSettings, PrefixCache, Request, Running, Scheduler
from pophood.generate.decoder import BLOCK, KV_SLACK
from pophood.model.engine import Engine
from pophood.model.memory import plan_memory
from pophood.sampling import SamplingSettings
from pophood.text.tokenizer import Tokenizer
from tests.tiny import tiny_folder

WINDOW = 48
CONTEXT = 4_096
FAR = WINDOW + KV_SLACK + BLOCK  # positions after which something is freed
GREEDY = SamplingSettings(temperature=0, min_tokens=1)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("windows"), "llama"))


@pytest.fixture(scope="module")
def engine(lm: pophood.LM) -> Engine:
    kinds = (WINDOW, None, WINDOW)[: lm.config.n_layer]
    attention = tuple(BlockAttention(window, lm.config.rope) for window in kinds)
    made = Engine(replace(lm.config, n_positions=CONTEXT, attention=attention), threads=1)
    made.load(lm.bundle.weights)
    return made


@pytest.fixture(scope="module")
def tokenizer(lm: pophood.LM) -> Tokenizer:
    return lm.bundle.tokenizer


def text(length: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(int(token) for token in np.random.default_rng(seed).integers(5, 400, length))


def answered(
    scheduler: Scheduler, prompt: tuple[int, ...], new: int = 5, scores: int | None = None
) -> tuple[Running, list[int]]:
    """Compute a request to its end; return it and its tokens."""
    settings = GenerateSettings(sampling=GREEDY, max_tokens=new, stop_ids=())
    running = scheduler.submit(Request(prompt, settings, scores=scores))
    tokens = []
    while not scheduler.idle:
        tokens += [token.id for _, token in scheduler.step().tokens]
    return running, tokens


def kept(engine: Engine, tokenizer: Tokenizer, blocks: int = 4_000) -> tuple[PrefixCache, Scheduler]:
    prefix = PrefixCache(engine, blocks)
    return prefix, Scheduler(engine, tokenizer, prefix, blocks=2 * blocks)


def test_nearly_all_of_a_chats_history_is_cached(engine: Engine, tokenizer: Tokenizer) -> None:
    prefix, scheduler = kept(engine, tokenizer)
    history, cached, whole = text(300), 0, 0
    for turn in range(20):
        running, tokens = answered(scheduler, history, 20)
        cached, whole = cached + running.reused, whole + (len(history) if turn else 0)
        alone, same = answered(Scheduler(engine, tokenizer), history, 20)
        assert (tokens, alone.reused) == (same, 0)
        history += (*tokens, *text(15, turn))
    assert cached >= 0.95 * (whole - 19 * 15 - 19), "of what was there before the newest turn"
    assert cached >= 0.95 * whole
    prefix.forget()


def test_a_prompt_goes_on_at_every_kept_place(engine: Engine, tokenizer: Tokenizer) -> None:
    prefix, scheduler = kept(engine, tokenizer)
    ids = text(2_600)
    answered(scheduler, ids[:2_500], 40)
    for shared, resumed in ((2_500, 2_499), (2_400, 2_400), (2_200, 2_048), (1_800, 1_024), (700, 0)):
        prompt = ids[:shared] + text(9, shared) if shared < 2_500 else ids[:2_500]
        taken = prefix.take(prompt)
        assert (taken.length, taken.known) == (resumed, min(shared, len(prompt) - 1))
        engine.drop(taken.sequence)
    prefix.forget()


def test_where_two_prompts_part_the_third_goes_on(engine: Engine, tokenizer: Tokenizer) -> None:
    prefix, scheduler = kept(engine, tokenizer)
    system = text(400)
    found = [answered(scheduler, system + text(300, seed))[0].reused for seed in (1, 2, 3, 4)]
    assert found == [0, 0, 400, 400]
    prefix.forget()


def test_a_long_answer_is_kept_on_its_way(engine: Engine, tokenizer: Tokenizer) -> None:
    prefix, scheduler = kept(engine, tokenizer)
    _, tokens = answered(scheduler, text(900), 400)
    taken = prefix.take(text(900) + tuple(tokens[:150]) + (3, 3))
    assert (taken.length, taken.known) == (1_024, 1_050)
    engine.drop(taken.sequence)
    prefix.forget()


def test_a_single_conversation_keeps_its_end(engine: Engine, tokenizer: Tokenizer) -> None:
    ids = text(3_500)
    prefix, scheduler = kept(engine, tokenizer, blocks=60)
    blocks = prefix.kv.held(3_504)
    assert blocks < 60
    for end in range(500, 3_501, 500):
        running, _ = answered(scheduler, ids[:end], 1)
        assert running.reused == max(end - 500, 0)
        assert prefix.blocks <= 60
    prefix.forget()
    assert prefix.blocks == 0


PROMPT = st.tuples(st.integers(0, 2), st.integers(1, 700), st.integers(0, 3), st.integers(0, 300))


@given(prompts=st.lists(PROMPT, min_size=2, max_size=8), blocks=st.sampled_from([30, 100, 4_000]))
@settings(deadline=None, max_examples=25)
def test_any_prompts_give_what_they_give_alone(
    engine: Engine, tokenizer: Tokenizer, prompts: list[tuple[int, int, int, int]], blocks: int
) -> None:
    prefix, scheduler = kept(engine, tokenizer, blocks)
    try:
        for number, (first, length, second, more) in enumerate(prompts):
            prompt = text(1_000, first)[:length] + text(more, 10 + second)
            running, tokens = answered(scheduler, prompt, 3, 1 if number % 3 == 2 else None)
            _, same = answered(Scheduler(engine, tokenizer), prompt, 3)
            assert tokens == same
            assert running.reused <= running.known < len(prompt) or not running.known
            assert prefix.blocks <= blocks
            spans = list(prefix.spans())
            assert all(engine.length(span.sequence) == span.end for span in spans)
    finally:
        prefix.forget()


def test_memory_stays_within_the_blocks_that_are_counted(engine: Engine, lm: pophood.LM) -> None:
    own = Engine(engine.config, threads=1)
    own.load(lm.bundle.weights)
    blocks = 200
    prefix = PrefixCache(own, blocks)
    scheduler = Scheduler(own, lm.bundle.tokenizer, prefix, blocks=blocks)
    bytes_of = BLOCK * plan_memory(own.config, lambda _: "F32", kv=own.kv).cache_per_position
    draw = np.random.default_rng(3)
    for number in range(60):
        kind = number // 20  # long prompts, short ones, several answers
        prompt = text(int(draw.integers(1, 60 if kind == 1 else 2_500)), int(draw.integers(0, 4)))
        settings = GenerateSettings(max_tokens=40, samples=4 if kind == 2 else 1, stop_ids=(), seed=number)
        scheduler.submit(Request(prompt, settings, client=number % 3))
        while scheduler.waiting:
            scheduler.step()
            assert prefix.blocks + scheduler.reserved <= blocks
            assert own.cache_bytes <= (blocks + 33) * bytes_of
    scheduler.close()
