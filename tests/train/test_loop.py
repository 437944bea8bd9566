"""The training loop: its events, its stops, and that no broken state is learned or saved."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pophood.errors import EngineError, OutOfMemory
from pophood.train.checkpoint.save_load import latest, load
from pophood.train.data.dataset.packing import Batch
from pophood.train.events import Evaluated, Event, Finished, Saved, Started, Step
from pophood.train.loop import trainer as loop
from pophood.train.loop.optimizer import Optimizer
from pophood.train.loop.step import StepResult, train_step
from pophood.train.loop.trainer import Trainer
from pophood.train.model.loss import BatchTensors
from pophood.train.model.precision import load_f32
from pophood.train.model.transformer import DropoutRates, Model
from pophood.train.run import timing
from pophood.train.run.stopping import Stop
from pophood.train.settings import TrainSettings
from tests.tiny import Values, tiny_config
from tests.train.hashes import state_hash
from tests.train.small import Case, documents, trainer_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    return [
        (type(event).__name__, event.first_step if isinstance(event, Started) else event.step)
        for event in events
    ]


def poison(trainer: Trainer, call: int, value: float = math.nan) -> None:
    """Let the model's n-th training forward pass, counted from 1, return a value that is not a number."""
    count = 0

    def hook(module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        nonlocal count
        count += module.training
        return output * value if count == call and module.training else None

    trainer.model.register_forward_hook(hook)


# What it reports --------------------------------------------------------------------------------------


def test_the_events_of_a_run(data: Path, tmp_path: Path) -> None:
    case = Case(steps=4, rate=5e-3)
    trainer = trainer_of(case, data, out=tmp_path, evaluations=2)
    events = list(trainer.run())
    evaluated = [("Evaluated", 2), ("Saved", 2), ("Step", 3), ("Step", 4), ("Evaluated", 4), ("Saved", 4)]
    start = [("Started", 0), ("Evaluated", 0), ("Step", 1), ("Step", 2)]
    assert kinds(events) == [*start, *evaluated, ("Finished", 4)]
    steps = [event for event in events if isinstance(event, Step)]
    # By hand: one step of warm-up at 5e-3, then a cosine from 5e-3 to a tenth of it, at 0, 1/3 and 2/3 of a
    # half turn: 5e-3 * (0.1 + 0.9 * (1 + cos) / 2) with cos = 1, 1/2, -1/2.
    by_hand = [5e-3, 5e-3, 5e-3 * (0.1 + 0.9 * 0.75), 5e-3 * (0.1 + 0.9 * 0.25)]
    assert [step.learning_rate for step in steps] == pytest.approx(by_hand, rel=1e-12)
    assert [step.steps for step in steps] == [4, 4, 4, 4]
    assert steps[-1].left == 0
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    assert losses[-1] < losses[0]
    assert [event.best for event in events if isinstance(event, Evaluated)] == [True, True, True]
    assert all(0 < a.seconds < b.seconds for a, b in pairwise(steps))
    saved = [event for event in events if isinstance(event, Saved)]
    assert load(saved[-1].path)[1]["validation_loss"] == losses[-1]


def test_accumulated_batches_weigh_every_target_the_same(data: Path) -> None:
    """Documents in one batch, or in two of different length, give the same loss and gradient."""
    results = []
    for rows, accumulation in ((6, 1), (3, 2)):
        trainer = trainer_of(Case(), data, batch_size=rows, accumulation=accumulation, steps=1)
        (step,) = (event for event in trainer.run() if isinstance(event, Step))
        results.append(step)
    assert results[0].learned == results[1].learned
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-6)
    assert results[0].gradient == pytest.approx(results[1].gradient, rel=1e-5)


def test_timing_a_step_changes_nothing(data: Path) -> None:
    planned = trainer_of(Case(dropout=0.1), data, steps=None, minutes=0.001)
    before = state_hash(planned.state())
    assert timing.seconds_per_step(planned) > 0
    assert state_hash(planned.state()) == before
    planned.steps = 5
    planned.settings = Case(dropout=0.1).settings(steps=5)  # no clock, which may cut it short
    list(planned.run())
    told = trainer_of(Case(dropout=0.1), data, steps=5)  # both draw from torch's one random state
    list(told.run())
    assert state_hash(planned.state()) == state_hash(told.state())


@pytest.mark.parametrize(("accumulation", "together"), [(1, 1), (3, 2)])
def test_a_step_is_timed_on_batches_that_differ(
    data: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int, together: int
) -> None:
    """Documents differ in the memory that they need, and the plan takes the peak of these passes."""
    trainer = trainer_of(Case(accumulation=accumulation), data)
    seen: list[list[int]] = []

    def step(
        learner: object, optimizer: Optimizer, batches: Sequence[BatchTensors], *rest: Any
    ) -> StepResult:
        seen.append([int(batch.tokens.sum()) for batch in batches])
        return train_step(trainer.distributed, optimizer, batches, *rest)

    monkeypatch.setattr(timing, "train_step", step)
    before = time.perf_counter()
    assert 0 < timing.seconds_per_step(trainer) <= time.perf_counter() - before
    assert {len(pair) for pair in seen} == {together}
    assert len({tuple(pair) for pair in seen}) == len(seen) > 1


def test_a_resumed_run_has_the_minutes_that_are_left(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(Case(), data, out=tmp_path, steps=None, minutes=1.0)
    trainer.steps, trainer.seconds = 1_000, 59.9
    events = list(trainer.run())
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].step < 1_000) == ("clock", True)
    path = latest(tmp_path, pytest.fail)
    assert path is not None
    again = trainer_of(Case(), data, steps=None, minutes=1.0)
    again.restore(*load(path))
    assert (again.steps, again.seconds >= 60) == (1_000, True)
    assert kinds(list(again.run()))[-1] == ("Finished", trainer.step)


# What breaks it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("step", [1, 2, 7])
def test_a_loss_that_is_no_number_stops_it_and_is_not_kept(
    step: int, value: float, data: Path, tmp_path: Path
) -> None:
    case = Case(dropout=0.1, accumulation=2)
    trainer = trainer_of(case, data, out=tmp_path)
    poison(trainer, 2 * step, value)  # the second batch of that step
    with pytest.raises(EngineError, match=rf"^step {step}: the loss is nan") as error:
        list(trainer.run())
    order = documents_of(trainer, 2 * step - 1)
    named = [f"{name}" for name in order if name in str(error.value)]
    assert named == order  # these documents, and none of another batch
    assert str(error.value).count(".jsonl:") == len(order)
    reference = trainer_of(case, data, steps=case.steps)
    done = reference.run()
    for event in done:
        if isinstance(event, Step) and event.step == step - 1:
            break
        if step == 1 and isinstance(event, Evaluated):
            break
    for name, tensor in reference.state()[0].items():
        if name != "random":
            assert torch.equal(trainer.state()[0][name], tensor), name
    path = latest(tmp_path, pytest.fail)
    assert (path is None) == (step <= 3)
    if path is not None:
        tensors, facts = load(path)
        assert facts["step"] == 6
        assert all(bool(torch.isfinite(tensors[name].float()).all()) for name in tensors)


def documents_of(trainer: Trainer, number: int) -> list[str]:
    """Return the sources of a run's n-th batch, counted from 0."""
    epoch = 0
    while number >= trainer.train.batches_per_epoch(epoch):
        number -= trainer.train.batches_per_epoch(epoch)
        epoch += 1
    return list(dict.fromkeys(trainer.train.batch(epoch, number).sources))[:8]


def test_a_loss_that_explodes_stops_it(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(Case(family="llama", rate=3.0, steps=16), data, out=tmp_path)
    with pytest.raises(EngineError, match=r"step \d+: the loss is \d\d\.?\d* and .*lower --learning-rate"):
        list(trainer.run())
    for tensor in trainer.state()[0].values():
        assert bool(torch.isfinite(tensor.float()).all())


def test_a_validation_loss_that_is_no_number_stops_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(Case(), data, out=tmp_path)
    monkeypatch.setattr(loop, "evaluate", lambda *_: math.nan if trainer.step == 6 else 5.0)
    with pytest.raises(EngineError, match="step 6: the validation loss is nan"):
        list(trainer.run())
    path = latest(tmp_path, pytest.fail)
    assert path is not None
    assert load(path)[1]["step"] == 3


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")]
)
def test_no_memory_is_told_in_words(error: Exception, data: Path) -> None:
    trainer = trainer_of(Case(), data)

    def hook(*_: Any) -> None:
        if trainer.step == 2 and trainer.model.training:
            raise error

    trainer.model.register_forward_hook(hook)
    with pytest.raises(OutOfMemory, match="step 3: out of memory; the last checkpoint is whole"):
        list(trainer.run())


def test_other_errors_stay_what_they_are(data: Path) -> None:
    trainer = trainer_of(Case(), data)

    def hook(*_: Any) -> None:
        raise RuntimeError("a mistake of ours")

    trainer.model.register_forward_hook(hook)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(trainer.run())


# Signals ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def default_ctrl_c() -> Iterator[None]:
    """Restore the default Ctrl-C handler: background jobs of a shell ignore it, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop() is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_asks_and_the_handlers_go_back(number: signal.Signals, code: int, data: Path) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        trainer = trainer_of(Case(), data, should_stop=stop)
        events: list[Event] = []
        for event in trainer.run():
            events.append(event)
            if isinstance(event, Step) and event.step == 3:
                assert (stop(), stop.exit_code) == (None, 0)
                signal.raise_signal(number)
        assert isinstance(events[-1], Finished)
        assert (events[-1].step, events[-1].reason, stop.exit_code) == (3, "stopped", code)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == 143


# The same bits ----------------------------------------------------------------------------------------


def real_sized(threads: int) -> tuple[Trainer, Callable[[], str]]:
    """Return a trainer large enough for torch to use threads, with many documents per row, and its hash."""
    config = tiny_config(
        "gpt2", vocab_size=4_000, n_embd=256, n_head=4, head_dim=64, n_inner=1024, n_kv_head=4
    )
    model = Model(config, DropoutRates(0.1, 0.1, 0.1))
    values = Values(config)
    load_f32(model, {name: values(name) for name, _ in model.named_parameters()})
    random = np.random.default_rng(0)
    rows, length = 2, 128
    numbers = np.sort(random.integers(0, 5, (rows, length)), axis=1).astype(np.int32)
    starts = np.array([[np.flatnonzero(row == n)[0] for n in row] for row in numbers])
    ids = random.integers(0, 4_000, (2, rows, length))
    batch = Batch(ids[0], ids[1], np.arange(length) - starts, numbers, ("x:1",))

    class One:
        def batch(self, epoch: int, index: int) -> Batch:
            return batch

        def batches_per_epoch(self, epoch: int) -> int:
            return 1

    torch.set_num_threads(threads)
    trainer = Trainer(model, One(), None, TrainSettings(method="full", steps=3, length=length, dropout=0.1))
    return trainer, lambda: state_hash(trainer.state())


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.full)])
def test_kernels_of_real_size_give_the_same_bits_twice(threads: int) -> None:
    hashes = set()
    for _ in range(2 if threads == 1 else 5):
        trainer, made = real_sized(threads)
        list(trainer.run())
        hashes.add(made())
    assert len(hashes) == 1


def test_the_data_of_these_tests_packs_documents_together(data: Path) -> None:
    trainer = trainer_of(Case(), data)
    assert trainer.train.batch(0, 0).documents.max() >= 1
    assert len(documents(data).validation) > 1


def test_a_signal_is_answered_while_the_processor_is_busy() -> None:
    """A single call computes for seconds, during which Python runs no signal handler."""
    answered: list[float] = []
    with Stop(lambda: answered.append(time.monotonic())) as stop:
        sender = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        sender.start()
        size, begin = 400_000, time.monotonic()
        while not answered or time.monotonic() - begin < 1.0:  # until one call has outlasted the signal
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", size)
            size *= 2
        ended = time.monotonic()
        assert stop() == "stopped"
    assert len(answered) == 1
    assert answered[0] < ended - 0.05, "during the call, not after it"
    assert answered[0] - begin < 1.2


def test_nothing_is_announced_without_a_signal_and_the_wakeup_goes_back() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    threads, said = threading.active_count(), list[str]()
    with Stop(lambda: said.append("stopping")):
        assert signal.set_wakeup_fd(-1) != before
    assert signal.set_wakeup_fd(before) == before
    assert (said, threading.active_count()) == ([], threads)
