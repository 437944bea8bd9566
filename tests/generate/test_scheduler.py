"""The scheduler: requests in one batch give what they give alone; they wait, share, end and fail apart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput, EngineError, QueueFull
from pophood.generate import GenerateSettings, PrefixCache, Request, Running, Scheduler, Token, passes
from pophood.generate.passes import PrefillPace
from pophood.sampling import SamplingSettings
from tests.generate.mock import MockDecoder
from tests.generate.runs import END, TOKENIZER, WILD
from tests.test_adapters import random_adapter
from tests.tiny import tiny_folder

Record = tuple[Any, ...]


def request(prompt: list[int], client: str = "", **values: Any) -> Request:
    more = {name: values.pop(name) for name in ("adapters", "scores", "generates") if name in values}
    settings = GenerateSettings(**{"sampling": WILD, "seed": 7, "max_tokens": 5, **values})
    return Request(tuple(prompt), settings, client=client, **more)


def record(token: Token) -> Record:
    return (token.sample, token.id, token.text, token.logit, token.log_mass, token.top, token.finish)


def tokens_of(scheduler: Scheduler, running: list[Running]) -> dict[Running, list[Record]]:
    """Step to the end and return every request's tokens, sample by sample."""
    found: dict[Running, list[Record]] = {one: [] for one in running}
    while not scheduler.idle:
        for one, token in scheduler.step().tokens:
            found[one].append(record(token))
    return {one: sorted(tokens, key=lambda token: token[0]) for one, tokens in found.items()}


def mock(**values: Any) -> tuple[MockDecoder, Scheduler]:
    engine = MockDecoder(context=values.pop("context", 64))
    return engine, Scheduler(engine, TOKENIZER, **values)


# Many requests ----------------------------------------------------------------------------------------


def random_requests(vocabulary: int, adapters: list[int], n: int, seed: int) -> list[Request]:
    """Requests of all lengths, samplers, seeds, numbers of samples, adapters and kinds of scores."""
    draw = np.random.default_rng(seed)
    shared = draw.integers(3, vocabulary, 80).tolist()
    samplers = [
        SamplingSettings(temperature=0),
        SamplingSettings(),
        SamplingSettings(top_k=0, top_p=0.9),
        SamplingSettings(repetition_penalty=1.3, temperature=1.1),
        SamplingSettings(logit_bias={5: 3.0}, min_tokens=3),
    ]
    found = []
    for _ in range(n):
        prompt = shared[: draw.integers(0, 80)] + draw.integers(3, vocabulary, draw.integers(1, 60)).tolist()
        settings = GenerateSettings(
            sampling=samplers[draw.integers(len(samplers))],
            max_tokens=int(draw.integers(3, 20)),
            samples=int(draw.choice([1, 1, 1, 2, 4])),
            seed=int(draw.integers(1000)),
            details=str(draw.choice(["plain", "probability", "top"])),  # type: ignore[arg-type]
            top=3,
        )
        scores = None if draw.random() < 0.7 else int(draw.integers(0, 4))
        generates = scores is None or draw.random() < 0.5
        key = tuple(int(i) for i in draw.permutation(adapters)[: draw.integers(0, 3)])
        client = str(draw.integers(4))
        found.append(Request(tuple(prompt), settings, key, client, scores, generates))
    return found


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder: Path = tmp_path_factory.mktemp("scheduler") / "model"
    return pophood.load(tiny_folder(folder, "llama", seed=3), threads=2, precision="q8")


def run_mixed(lm: pophood.LM, n: int) -> None:
    engine, tokenizer = lm.engine, lm.bundle.tokenizer
    adapters = [engine.add_adapter(random_adapter(lm, i)) for i in range(2)]
    requests = random_requests(lm.config.vocab_size, adapters, n, seed=n)
    with engine.sequence() as sequence:
        engine.logits([(sequence, [1])])
        block = engine.cache_bytes
    alone = []
    for one in requests:
        scheduler = Scheduler(engine, tokenizer)
        single = scheduler.submit(one)
        alone.append((tokens_of(scheduler, [single])[single], list(single.scores), single.finishes))
    cache = PrefixCache(engine, 60)
    scheduler = Scheduler(engine, tokenizer, cache, blocks=90, together=12)
    draw = np.random.default_rng(1)
    waiting, running = list(requests), list[Running]()
    cancelled: set[Running] = set()
    found: dict[Running, list[Record]] = {}
    while waiting or not scheduler.idle:
        for _ in range(draw.integers(0, 4)):
            if waiting:
                running.append(scheduler.submit(waiting.pop(0)))
                found[running[-1]] = []
            if draw.random() < 0.2:  # one beside them that is given up
                other = scheduler.submit(random_requests(lm.config.vocab_size, adapters, 1, len(found))[0])
                cancelled.add(other)
        for other in list(cancelled):
            if draw.random() < 0.3:
                scheduler.cancel(other)
                cancelled.discard(other)
        for owner, token in scheduler.step().tokens:
            if owner in found:
                found[owner].append(record(token))
        assert scheduler.reserved + cache.blocks <= 90
        assert engine.cache_bytes <= 90 * block
    assert any(owner.reused for owner in running), "the prefix cache was of use"
    for owner, (tokens, scores, finishes) in zip(running, alone, strict=True):
        assert sorted(found[owner], key=lambda token: token[0]) == tokens
        assert (list(owner.scores), owner.finishes, owner.error) == (scores, finishes, None)
    cache.forget()
    assert scheduler.reserved == 0 and engine._sequence_adapters == {}
    for number in adapters:
        engine.remove_adapter(number)


def test_mixed_requests_in_batches_have_the_bits_of_the_same_requests_alone(lm: pophood.LM) -> None:
    """All lengths, samplers, adapters, kinds of scores; cached beginnings; others cancelled beside them."""
    run_mixed(lm, 60)


@pytest.mark.full
def test_five_hundred_mixed_requests_have_the_bits_of_the_same_requests_alone(lm: pophood.LM) -> None:
    run_mixed(lm, 500)


def test_scores_are_those_of_the_library(lm: pophood.LM) -> None:
    ids = lm.tokenize("The capital of Spain is Madrid, and that of Japan is Tokyo.")
    cache = PrefixCache(lm.engine, 60)
    scheduler = Scheduler(lm.engine, lm.bundle.tokenizer, cache)
    wanted = lm.score(ids).log_probabilities
    for generates in (True, False, True):
        running = scheduler.submit(request(ids, scores=2, generates=generates, max_tokens=1))
        tokens = tokens_of(scheduler, [running])[running]
        found = [score.log_probability for score in running.scores]
        assert found[0] is None and np.array_equal(np.array(found[1:], np.float32), wanted[1:])
        assert [score.id for score in running.scores] == ids
        assert all(len(score.top) == 2 and score.top[0][1] >= score.top[1][1] for score in running.scores[1:])
        assert len(tokens) == generates
    assert running.reused == len(ids) - 1


# Waiting ----------------------------------------------------------------------------------------------


def test_blocks_are_reserved_so_that_an_admitted_request_can_finish() -> None:
    engine, scheduler = mock(blocks=5, context=200)
    first = scheduler.submit(request([1] * 60, max_tokens=37))  # 96 positions: 3 blocks
    second = scheduler.submit(request([2] * 60, "b", max_tokens=38))  # 97: 4 blocks
    scheduler.step()
    assert (scheduler.running, scheduler.waiting, scheduler.reserved) == ([first], 1, 3)
    while not first.ended:
        scheduler.step()
    scheduler.step()
    assert scheduler.running == [second] and scheduler.reserved == 4
    scheduler.close()
    assert (scheduler.reserved, scheduler.waiting, engine.sequences) == (0, 0, {})


def test_samples_reserve_what_they_do_not_share() -> None:
    _, scheduler = mock(blocks=100, context=200)
    running = scheduler.submit(request([1] * 40, max_tokens=30, samples=3))
    assert running.blocks == 3 + 2 * 2, "69 positions are 3 blocks, of which the samples share the first"
    assert scheduler.submit(request([1] * 40, max_tokens=None)).blocks == 7


def test_what_can_never_fit_is_refused_and_a_full_queue_says_so() -> None:
    _, scheduler = mock(blocks=2, queue=1, context=200)
    with pytest.raises(BadInput, match="needs 3 blocks of keys and values, and 2 are there"):
        scheduler.submit(request([1] * 60, max_tokens=20))
    scheduler.submit(request([1]))
    with pytest.raises(QueueFull, match="1 requests wait already"):
        scheduler.submit(request([1]))


def test_more_samples_than_together_are_computed_alone() -> None:
    _, scheduler = mock(together=2)
    before, many, after = (scheduler.submit(request([1], max_tokens=2, samples=n)) for n in (1, 5, 1))
    beside = []
    while not scheduler.idle:
        scheduler.step()
        beside.append([one for one in (before, many, after) if one in scheduler.running])
    assert [many] in beside and len(many.finishes) == 5
    assert not any(many in some and len(some) > 1 for some in beside)


def test_clients_take_turns() -> None:
    _, scheduler = mock(together=1)
    running = [scheduler.submit(request([1], client, max_tokens=1)) for client in "aaabac"]
    order = []
    while not scheduler.idle:
        order += [running.index(one) for one in scheduler.step().ended]
    assert order == [0, 3, 5, 1, 2, 4], "b and c wait for one request of a, not for all"


def test_prompts_of_several_clients_are_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "ROOM", 8)
    engine, scheduler = mock()
    for client in "ab":
        scheduler.submit(request([1] * 20, client))
    for _ in range(4):
        scheduler.step()
    assert sorted(len(ids) for ids in engine.sequences.values()) == [16, 16]


def test_prompts_do_not_hold_up_texts_that_are_being_written() -> None:
    own = PrefillPace()
    own.note(1, 0, 0.010)  # a pass that writes takes 10 ms
    own.note(0, 100, 0.050)  # a token of a prompt 0.5 ms
    assert own.room(0) == 512 and own.room(1) == 20, "10 ms and 20 tokens are twice 10 ms"
    assert PrefillPace(None, 0.010, 0.0005).room(1) == 511, "a batch that nobody watches"
    assert PrefillPace(None, 0.010, 0.1).room(0) == 20, "a large model: two seconds"
    assert PrefillPace(2.5, 0.001, 1.0).room(1) == 4, "a prompt always goes on"


# Endings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0, 1, 3])
def test_a_cancelled_request_leaves_and_the_others_go_on(when: int) -> None:
    engine, scheduler = mock()
    one, other = scheduler.submit(request([1, 2], samples=2)), scheduler.submit(request([3]))
    found: list[Record] = []
    for step in itertools.count():
        if step == when:
            one.cancel()
        found += [record(token) for running, token in scheduler.step().tokens if running is other]
        if scheduler.idle:
            break
        if step > when:
            assert one.ended and len(engine.sequences) <= 1
    alone_engine, alone = mock()
    running = alone.submit(request([3]))
    assert found == tokens_of(alone, [running])[running]
    assert (one.error, engine.sequences, alone_engine.sequences) == (None, {}, {})


def test_a_waiting_request_ends_as_soon_as_it_is_cancelled() -> None:
    _, scheduler = mock(together=1)
    first, second = scheduler.submit(request([1])), scheduler.submit(request([2]))
    scheduler.step()
    scheduler.cancel(second)
    assert second.ended and scheduler.waiting == 0 and not first.ended


def test_an_error_of_one_request_ends_it_alone() -> None:
    """A NaN fails the whole pass; each request is then computed alone, and one fails again."""

    class Poisoned(MockDecoder):
        def summary(self, batch: Any, *arguments: Any, **more: Any) -> Any:
            if any(13 in self.sequences[sequence] or 13 in ids for sequence, ids in batch):
                raise EngineError("a NaN")
            return super().summary(batch, *arguments, **more)

    engine = Poisoned()
    scheduler = Scheduler(engine, TOKENIZER)
    greedy = SamplingSettings(logit_bias={13: -100.0}, temperature=0)
    good, bad = (scheduler.submit(request(ids, sampling=greedy, stop_ids=())) for ids in ([1], [13]))
    found = tokens_of(scheduler, [good, bad])
    assert (len(found[good]), good.error, found[bad], str(bad.error)) == (5, None, [], "a NaN")
    assert engine.sequences == {}


def test_a_token_that_cannot_be_chosen_ends_its_request_alone() -> None:
    engine, scheduler = mock()
    forbidden = SamplingSettings(logit_bias=dict.fromkeys(range(16), -np.inf))
    bad, good = scheduler.submit(request([1], sampling=forbidden)), scheduler.submit(request([1]))
    found = tokens_of(scheduler, [bad, good])
    assert isinstance(bad.error, BadInput) and len(found[good]) == 5 and engine.sequences == {}


def test_an_interrupt_is_raised_and_closing_frees_everything() -> None:
    engine, scheduler = mock()
    engine.failure, engine.fail_at = KeyboardInterrupt(), 2
    scheduler.submit(request([1], stop_ids=(END,)))
    scheduler.step()
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    scheduler.close()
    assert (engine.sequences, scheduler.running, scheduler.reserved) == ({}, [], 0)
