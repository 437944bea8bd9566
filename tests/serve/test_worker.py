"""The worker's thread on a tiny model: events, cancelling at every stage, faults, adapters, and its end."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import pytest

import pophood
from pophood.errors import EngineError
from pophood.model import packed_adapters
from pophood.sampling import SamplingSettings
from pophood.serve.messages import (
    Begun,
    Drain,
    Ended,
    Event,
    Failed,
    Message,
    PromptRead,
    PromptScored,
    Tokens,
    UseThreads,
)
from tests.processes import HANG_SECONDS
from tests.serve.workers import BLOCKS, CONTEXT, Talk
from tests.test_adapters import random_adapter

LONG = CONTEXT - 8


def prompt(length: int, seed: int = 0) -> list[int]:
    return random.Random(seed).choices(range(20, 500), k=length)


def kinds(events: list[Event]) -> list[type[Any]]:
    return [type(event) for event in events]


def failed(events: list[Event]) -> Failed:
    last = events[-1]
    assert isinstance(last, Failed)
    return last


# ---- events ----


def test_the_events_of_a_request_are_in_order(talk: Talk) -> None:
    number = talk.ask(prompt(700), max_tokens=4, seed=7)
    events = talk.until(number)
    begun, ended = events[0], events[-1]
    assert begun == Begun(number, 0, 700, 7)
    assert isinstance(ended, Ended)
    assert ended.finishes == {0: "length"}
    assert (ended.timings.prefill_tokens, ended.timings.decode_tokens) == (700, 3)
    reads = [event.read for event in events if isinstance(event, PromptRead)]
    assert reads == sorted(set(reads))
    assert reads[-1] == 700
    assert len(reads) > 1, "the prompt has more tokens than a pass"
    assert kinds(events) == [Begun, *[PromptRead] * len(reads), *[Tokens] * 4, Ended]


def test_what_was_read_before_is_counted_as_cached(talk: Talk) -> None:
    first = talk.ask(prompt(100), max_tokens=4)
    talk.until(first)
    again = talk.ask(prompt(100), max_tokens=4)
    begun = talk.until(again)[0]
    assert isinstance(begun, Begun)
    assert begun.cached == 99
    assert talk.ids(again) == talk.ids(first)


def test_scores_come_before_tokens_and_without_any(talk: Talk) -> None:
    both = talk.ask(prompt(50), scores=2, max_tokens=1)
    events = talk.until(both)
    assert [kind for kind in kinds(events) if kind is not PromptRead] == [Begun, PromptScored, Tokens, Ended]
    alone = talk.ask(prompt(40, 9), scores=0, generates=False)
    events = talk.until(alone)
    assert [kind for kind in kinds(events) if kind is not PromptRead] == [Begun, PromptScored, Ended]
    cached = talk.ask(prompt(40, 9), scores=0, generates=False)
    again = talk.until(cached)
    assert [kind for kind in kinds(again) if kind is not PromptRead] == [Begun, PromptScored, Ended]
    scores = [
        next(event.scores for event in some if isinstance(event, PromptScored)) for some in (events, again)
    ]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 40


def test_one_delivery_for_each_step(talk: Talk) -> None:
    numbers = [talk.ask(prompt(5, seed), max_tokens=50) for seed in range(8)]
    for number in numbers:
        talk.until(number)
    full = max(sum(isinstance(event, Tokens) for event in step) for step in talk.steps)
    assert full == 8, "tokens of all requests arrive together"


def test_requests_together_give_what_each_gives_alone(talk: Talk, lm: pophood.LM) -> None:
    draw = random.Random(3)
    asked = []
    for seed in range(24):
        ids = prompt(draw.randint(1, 300), seed)
        values: dict[str, Any] = {
            "max_tokens": draw.randint(1, 30),
            "seed": seed,
            "samples": draw.choice([1, 1, 3]),
        }
        sampling = SamplingSettings(temperature=draw.choice([0.0, 0.9]), top_k=draw.choice([0, 40]))
        number = talk.ask(ids, client=seed % 3, sampling=sampling, **values)
        asked.append((number, ids, values, sampling))
        if draw.random() < 0.3:
            talk.cancel(talk.ask(prompt(200, seed + 100), max_tokens=500))
        if seed % 6 == 5:
            talk.until(number)
    for number, ids, values, sampling in asked:
        talk.until(number)
        alone: dict[int, list[int]] = {}
        values |= {"temperature": sampling.temperature, "top_k": sampling.top_k, "stop_ids": ()}
        for token in lm.stream(ids, **values):
            alone.setdefault(token.sample, []).append(token.id)
        assert {sample: talk.ids(number, sample) for sample in alone} == alone


# ---- cancelling ----


def test_cancelling_while_a_request_waits_is_read_and_is_written(talk: Talk) -> None:
    busy = [talk.ask(prompt(3, seed), max_tokens=3000, client=seed) for seed in range(8)]
    for number in busy:
        talk.until(number, Tokens)
    waiting = talk.ask(prompt(3), max_tokens=5)
    talk.cancel(waiting)
    talk.cancel(busy[0])  # being written
    reading = talk.ask(prompt(LONG), max_tokens=1)
    talk.until(reading, PromptRead)
    talk.cancel(reading)
    for number in busy[1:]:
        talk.cancel(number)
    gauges = talk.settle()
    assert talk.events(waiting) == []
    assert not any(isinstance(event, Tokens | Ended | Failed) for event in talk.events(reading))
    assert not any(isinstance(event, Ended | Failed) for number in busy for event in talk.events(number))
    assert gauges.blocks_used <= BLOCKS
    assert kinds(talk.until(talk.ask(prompt(4))))[-1] is Ended


def test_a_long_prompt_is_left_at_once(talk: Talk) -> None:
    """The flag is set by the thread that posts: the pass itself ends, not only the next one."""
    number = talk.ask(prompt(LONG), max_tokens=1)
    talk.until(number, PromptRead)
    began = time.monotonic()
    talk.cancel(number)
    talk.settle()
    last = [event.read for event in talk.events(number) if isinstance(event, PromptRead)][-1]
    assert last < LONG
    assert time.monotonic() - began < HANG_SECONDS


def test_cancelling_before_the_worker_saw_the_request(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    submit = talk.worker._submit

    def late(message: Any) -> None:
        held.wait(HANG_SECONDS)
        submit(message)

    monkeypatch.setattr(talk.worker, "_submit", late)
    number = talk.ask(prompt(3), max_tokens=50)
    talk.cancel(number)
    held.set()
    monkeypatch.undo()
    talk.until(talk.ask(prompt(3), max_tokens=1))
    assert talk.events(number) == []
    assert talk.worker._gone == set()


def test_many_that_leave_at_random_moments_leave_nothing_behind(talk: Talk) -> None:
    draw = random.Random(1)
    stayed = []
    for seed in range(60):
        number = talk.ask(
            prompt(draw.randint(1, 400), seed % 7), max_tokens=draw.randint(1, 60), client=seed % 5
        )
        time.sleep(draw.random() * 0.01)
        if draw.random() < 0.5:
            talk.cancel(number)
        else:
            stayed.append(number)
    for number in stayed:
        assert kinds(talk.until(number))[-1] in (Ended, Failed)
    talk.settle()
    worker = talk.worker
    assert (worker._open, worker._by_running, worker._unsettled, worker._gone) == ({}, {}, [], set())
    assert worker._scheduler.reserved == 0
    assert talk.gauges.blocks_used == worker._prefix.blocks


# ---- faults ----


def test_refusals_say_why_and_harm_nobody(talk: Talk) -> None:
    running = talk.ask(prompt(3), max_tokens=200)
    overflow = failed(talk.until(talk.ask(prompt(CONTEXT + 1))))
    assert (overflow.kind, overflow.got, overflow.limit) == ("overflow", CONTEXT + 1, CONTEXT)
    assert failed(talk.until(talk.ask([10**6]))).kind == "invalid"
    unknown = failed(talk.until(talk.ask(prompt(3), adapters=(("three", 1.0),))))
    assert unknown.kind == "invalid"
    assert "one, two" in unknown.message
    assert failed(talk.until(talk.ask(prompt(3), samples=20, max_tokens=4000))).kind == "invalid"
    assert kinds(talk.until(running))[-1] is Ended


def test_a_queue_that_is_full_is_said_at_once(talk: Talk) -> None:
    numbers = [talk.ask(prompt(3), max_tokens=2000, client=i) for i in range(40)]
    full = next(number for number in numbers if failed_kind(talk, number) == "full")
    assert "try again" in failed(talk.until(full)).message
    for number in numbers:
        talk.cancel(number)
    talk.settle()


def failed_kind(talk: Talk, number: int) -> str | None:
    first = talk.until(number, (Begun, Failed)) if number > 24 else []
    return first[-1].kind if first and isinstance(first[-1], Failed) else None


def test_an_error_of_the_engine_ends_one_request(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = talk.lm.engine
    summary, poison = engine.summary, prompt(5, 77)

    def fails(batch: Any, *args: Any, **values: Any) -> Any:
        if any(list(ids) == poison for _, ids in batch):
            raise EngineError("a NaN in block 1")
        return summary(batch, *args, **values)

    monkeypatch.setattr(engine, "summary", fails)
    good = talk.ask(prompt(3), max_tokens=100)
    talk.until(good, Tokens)
    bad = failed(talk.until(talk.ask(poison)))
    assert (bad.kind, bad.message) == ("engine", "a NaN in block 1")
    assert kinds(talk.until(good))[-1] is Ended


@pytest.mark.parametrize(
    ("error", "kind"), [(MemoryError("no more"), "engine"), (ZeroDivisionError("x"), "internal")]
)
def test_an_error_of_a_step_ends_what_is_open_and_nothing_else(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    numbers = [talk.ask(prompt(3, seed), max_tokens=3000) for seed in range(3)]
    for number in numbers:
        talk.until(number, Tokens)

    def fails(*args: Any, **values: Any) -> Any:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(talk.lm.engine, "summary", fails)
    assert {failed(talk.until(number)).kind for number in numbers} == {kind}
    assert kinds(talk.until(talk.ask(prompt(3))))[-1] is Ended
    assert talk.died is None


def test_when_the_thread_ends_it_says_why(tiny_chat: Any) -> None:
    talk = Talk(pophood.load(tiny_chat), {})

    def broken(message: Message) -> None:
        raise RuntimeError("the inbox broke")

    talk.worker._submit = broken  # type: ignore[assignment,method-assign]
    with talk:
        talk.ask(prompt(3))
        end = time.monotonic() + HANG_SECONDS
        while talk.died is None and time.monotonic() < end:
            time.sleep(0.01)
    assert talk.died == "RuntimeError: the inbox broke"


# ---- adapters ----


def test_adapters_by_name_and_scale(talk: Talk, lm: pophood.LM) -> None:
    ids = prompt(20)
    plain = talk.ask(ids, sampling=SamplingSettings(temperature=0))
    pairs = [(("one", 1.0),), (("one", 0.5),), (("one", 1.0), ("two", -0.5)), (("one", 1.0),)]
    numbers = [talk.ask(ids, adapters=pair, sampling=SamplingSettings(temperature=0)) for pair in pairs]
    for number in (plain, *numbers):
        talk.until(number)
    files = {"one": random_adapter(lm, 1), "two": random_adapter(lm, 2)}
    try:
        for pair, number in zip(pairs, numbers, strict=True):
            lm.use_adapters([(files[name], scale) for name, scale in pair])
            alone = [token.id for token in lm.stream(ids, max_tokens=8, temperature=0, stop_ids=())]
            assert talk.ids(number) == alone
    finally:
        lm.use_adapters([])
    assert talk.ids(plain) == [token.id for token in lm.stream(ids, max_tokens=8, temperature=0, stop_ids=())]
    assert len({tuple(talk.ids(number)) for number in (plain, *numbers)}) == 4
    assert len(talk.worker._packed._packed) == 3, "each pair is packed once"


def test_pairs_that_nobody_uses_are_unpacked(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_adapters, "PACKED", 2)
    removed: list[int] = []
    remove = talk.lm.engine.remove_adapter

    def noted(number: int) -> None:
        removed.append(number)
        remove(number)

    monkeypatch.setattr(talk.lm.engine, "remove_adapter", noted)
    kept = talk.ask(prompt(3), adapters=(("one", 1.0),), max_tokens=3000)
    talk.until(kept, Tokens)
    for scale in (0.1, 0.2, 0.3, 0.4):
        talk.until(talk.ask(prompt(3), adapters=(("two", scale),)))
    assert len(removed) == 2
    assert list(talk.worker._packed._packed) == [("one", 1.0), ("two", 0.3), ("two", 0.4)]
    talk.cancel(kept)
    assert kinds(talk.until(talk.ask(prompt(3), adapters=(("two", 0.1),))))[-1] is Ended


# ---- the end ----


def test_draining_lets_what_runs_finish_and_refuses_the_rest(talk: Talk) -> None:
    running = [talk.ask(prompt(3, seed), max_tokens=300, client=seed) for seed in range(8)]
    for number in running:
        talk.until(number, Tokens)
    waiting = talk.ask(prompt(3), max_tokens=3)
    talk.worker.post(Drain(HANG_SECONDS))
    late = talk.ask(prompt(3), max_tokens=3)
    assert failed(talk.until(waiting)).kind == "stopping"
    assert failed(talk.until(late)).kind == "stopping"
    assert all(kinds(talk.until(number))[-1] is Ended for number in running)
    talk.worker.join(HANG_SECONDS)
    assert not talk.worker.alive


def test_what_does_not_finish_in_time_is_ended(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = talk.lm.engine.summary

    def slow(*args: Any, **values: Any) -> Any:
        time.sleep(0.02)
        return summary(*args, **values)

    monkeypatch.setattr(talk.lm.engine, "summary", slow)
    running = talk.ask(prompt(3), max_tokens=4000)
    reading = talk.ask(prompt(LONG), max_tokens=4000)
    talk.until(running, Tokens)
    talk.until(reading, Begun)
    talk.worker.post(Drain(0.2))
    assert failed(talk.until(running)).kind == "stopping"
    assert failed(talk.until(reading)).kind == "stopping"
    talk.worker.join(HANG_SECONDS)
    assert not talk.worker.alive


def test_a_second_drain_can_only_shorten_the_time(talk: Talk) -> None:
    number = talk.ask(prompt(3), max_tokens=4090)
    talk.until(number, Tokens)
    talk.worker.post(Drain(HANG_SECONDS))
    talk.worker.post(Drain(0))
    assert failed(talk.until(number)).kind == "stopping"


def test_what_the_end_cuts_off_hears_of_it_before_the_worker_does(talk: Talk) -> None:
    """The timer of a Drain may end a request in a step that began before the message was taken."""
    number = talk.ask(prompt(3), max_tokens=4090)
    talk.until(number, Tokens)
    talk.worker._ending = True
    talk.worker._cancel_all()
    assert failed(talk.until(number)).kind == "stopping"


def test_threads_change_between_steps(talk: Talk) -> None:
    before = talk.ask(prompt(30), max_tokens=5)
    talk.until(before)
    talk.worker.post(UseThreads(2))
    after = talk.ask(prompt(30), max_tokens=5)
    talk.until(after)
    assert talk.lm.engine.threads == 2
    assert talk.ids(after) == talk.ids(before)
