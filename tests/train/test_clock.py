"""A run of minutes ends on time on fast, slow and busy machines, and still learns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pophood.train.checkpoint.save_load import latest, load
from pophood.train.events import Evaluated, Finished, Step
from pophood.train.loop.clock import Clock, Pace, keep_if_close, schedule_position
from pophood.train.loop.optimizer import learning_rate
from pophood.train.loop.trainer import Trainer
from pophood.train.run.timing import compute_first_step, evaluation_pace
from pophood.train.settings import TrainSettings
from tests.train.hashes import state_hash
from tests.train.small import Case, trainer_of

MINUTE = 60.0


# A run on paper --------------------------------------------------------------------------------------


@dataclass
class Paper:
    """A simulated machine: an undisturbed step takes `step` seconds, times `slower(now)`."""

    step: float
    slower: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0

    def work(self, quiet: float) -> None:
        """Advance the time by a piece of work."""
        self.now += quiet * self.slower(self.now)

    def run(self, first: float = 1.3, total: float = MINUTE) -> int:
        """Simulate a run as `calibration.py` starts it, with costs in units of a step; return its steps."""
        before, evaluation, writing = 0.4 * self.step, 0.4 * self.step, 0.3 * self.step
        self.work(before + self.step)  # measuring, and building the model
        begin = self.now
        self.work(first * self.step)  # step 1, whose first pass is slow
        clock = Clock(
            total,
            lambda: self.now,
            Pace(self.now - begin, self.now - begin, 0),
            before + evaluation + writing,
            rough=True,
        )
        clock.ending *= self.slower(self.now)
        self.work(evaluation)
        made, steps = 0, max(1, clock.steps_left(0))
        while made < steps:
            begin = self.now
            self.work(self.step if made else 0.0)
            made += 1
            clock.record(made - 1, self.now - begin)
            steps = made + keep_if_close(steps - made, clock.steps_left(made))
        self.work(before + evaluation + writing)
        return made


LOADS: dict[str, Callable[[float], float]] = {
    "quiet": lambda now: 1.0,
    "one core taken": lambda now: 2.0,
    "taken after 20 s": lambda now: 2.0 if now > 20 else 1.0,
    "taken until 20 s": lambda now: 2.0 if now < 20 else 1.0,
    "taken by turns": lambda now: 2.0 if int(now / 7) % 2 else 1.0,
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("step", [0.05, 0.4, 1.0, 1.6, 2.5])
def test_a_minute_takes_a_minute_and_learns(step: float, load: str) -> None:
    """When another program occupies a core, a step of 2.5 s takes 5 s, and a minute has 12 of them."""
    machine = Paper(step, LOADS[load])
    made = machine.run()
    assert 54 <= machine.now <= 66
    assert made >= 8


def test_a_step_as_long_as_a_minute_allows_12_is_made_8_times() -> None:
    machine = Paper(5.0)
    assert machine.run() >= 8
    assert 54 <= machine.now <= 66


@pytest.mark.parametrize("minutes", [0.2, 5, 30])
def test_other_times_are_kept_alike(minutes: float) -> None:
    machine = Paper(0.4, LOADS["taken by turns"])
    machine.run(total=60 * minutes)
    assert machine.now == pytest.approx(60 * minutes, rel=0.1)


def test_early_steps_that_fill_the_cache_are_counted_as_long() -> None:
    now = 0.0
    clock = Clock(100.0, lambda: now, Pace(4.0, 1.0, 10), ending=8.0)
    assert clock.steps_left(0) == int(100 * 0.98 - 8 - 40 + 2.0) + 10
    now = 40.0
    assert clock.steps_left(10) == int(98 - 40 - 8 + 0.5)
    clock.record(3, 8.0)  # twice as long as expected of an early one
    assert clock.ratio == pytest.approx(1.4)


def test_a_first_pass_is_forgotten_when_the_second_step_is_known() -> None:
    clock = Clock(60.0, lambda: 0.0, Pace(3.0, 3.0, 0), ending=0.0, rough=True)
    clock.record(0, 3.1)
    assert clock.ratio == 1.0
    clock.record(1, 1.5)
    assert clock.ratio == 0.5
    clock.record(2, 3.0)
    assert clock.ratio == pytest.approx(0.5 + 0.4 * 0.5)
    assert clock.expected_ending == 0.0


def test_the_end_takes_longer_by_as_much_as_steps_do() -> None:
    clock = Clock(60.0, lambda: 0.0, Pace(1.0, 1.0, 0), ending=6.0, rough=True)
    for step, seconds in enumerate((1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)):
        clock.record(step, seconds)
    assert clock.expected_ending == pytest.approx(12.0, rel=0.02)


@pytest.mark.parametrize("changes", [{}, {4: 20}, {4: 20, 10: 14}, {1: 3}, {9: 12, 11: 40}])
def test_the_rate_falls_to_its_end_without_a_jump_however_the_steps_change(changes: dict[int, int]) -> None:
    """Each step advances the schedule by the rest of it over the remaining steps."""
    settings, steps, turn = TrainSettings(learning_rate=1.0), 12, (0, 0.0)
    shares, step = [], 0
    while step < steps:
        if step in changes:
            turn, steps = (step, schedule_position(step, steps, turn) / steps), changes[step]
        shares.append(schedule_position(step, steps, turn) / steps)
        assert learning_rate(schedule_position(step, steps, turn), steps, settings) >= settings.final_rate
        step += 1
    assert schedule_position(steps, steps, turn) / steps == pytest.approx(1.0)
    differences = [b - a for a, b in itertools.pairwise([*shares, 1.0])]
    assert all(difference > 0 for difference in differences)
    assert max(differences) <= 0.5


# A run of a trainer ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


class Told(Clock):
    """A simulated clock: step n takes `took[n]` seconds."""

    def __init__(self, took: list[float], total: float, made: Callable[[], int]) -> None:
        super().__init__(total, lambda: sum(took[: made()]), Pace(1.0, 1.0, 0), ending=1.0)
        self.took = took

    def record(self, step: int, seconds: float) -> None:
        super().record(step, self.took[step])


def clocked(case: Case, data: Path, took: list[float], total: float, **options: object) -> Trainer:
    trainer = trainer_of(case, data, steps=None, minutes=total / 60, **options)  # type: ignore[arg-type]
    trainer.steps = 20
    trainer.clock = Told(took, total, lambda: trainer.step)
    return trainer


@pytest.mark.parametrize("stop", [1, 4, 9, 13])
def test_a_run_by_the_clock_that_is_stopped_goes_on_to_the_same_bits(
    stop: int, data: Path, tmp_path: Path
) -> None:
    """The machine becomes slower, then faster; both runs change their steps and end in the same way."""
    case = Case(dropout=0.1, accumulation=2)
    took = [1.0] * 5 + [3.0] * 4 + [0.5] * 60
    whole = clocked(case, data, took, 30.0)
    events = list(whole.run())
    steps = [event for event in events if isinstance(event, Step)]
    assert len({step.steps for step in steps}) > 2, "the number of steps has changed on the way"
    assert whole.step != 20
    reasons: list[str] = []
    first = clocked(case, data, took, 30.0, out=tmp_path, should_stop=lambda: reasons[0] if reasons else None)
    heard = []
    for event in first.run():
        heard += [event] if isinstance(event, Step) else []
        reasons += ["stopped"] if isinstance(event, Step) and event.step == stop else []
    second = clocked(case, data, took, 30.0)
    path = latest(tmp_path, pytest.fail)
    assert path is not None
    second.restore(*load(path))
    heard += [event for event in second.run() if isinstance(event, Step)]
    assert [(s.step, s.loss, s.learning_rate, s.steps) for s in heard] == [
        (s.step, s.loss, s.learning_rate, s.steps) for s in steps
    ]
    assert state_hash(second.state()) == state_hash(whole.state())


def test_time_that_is_over_at_once_cuts_the_schedule_and_says_so(data: Path) -> None:
    trainer = clocked(Case(), data, [1.0, 1.0, 50.0, *[1.0] * 60], 30.0)
    *_, last = trainer.run()
    assert isinstance(last, Finished)
    assert (last.step, last.reason) == (3, "clock")


def test_one_step_is_made_however_short_the_time_is(data: Path) -> None:
    trainer = clocked(Case(), data, [90.0, *[1.0] * 60], 0.01)
    assert [event.step for event in trainer.run() if isinstance(event, Step)] == [1]


# Step 1 is the calibration ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", [Case(dropout=0.2, accumulation=3), Case("lora", "llama", dropout=0.1)])
def test_a_first_step_that_was_timed_before_has_the_bits_of_any_other(case: Case, data: Path) -> None:
    plain = trainer_of(case, data)
    wanted = [event.loss for event in plain.run() if isinstance(event, Step | Evaluated)]
    timed = trainer_of(case, data)
    before = state_hash(timed.state())
    began = time.perf_counter()
    assert 0 < compute_first_step(timed) <= time.perf_counter() - began
    assert state_hash(timed.state()) == before, "until the run begins nothing has changed"
    assert evaluation_pace(timed).later > 0
    assert timed.known_losses is not None
    assert [event.loss for event in timed.run() if isinstance(event, Step | Evaluated)] == wanted
    assert state_hash(timed.state()) == state_hash(plain.state())


def test_no_pass_is_made_twice(data: Path) -> None:
    """Step 1 and the first validation batch are timed before the run, and used in it."""
    trainer, seen = trainer_of(Case(steps=1), data), list[bool]()
    trainer.model.register_forward_hook(lambda module, *_: seen.append(module.training))
    compute_first_step(trainer)
    evaluation_pace(trainer)
    assert trainer.validation is not None
    list(trainer.run())
    validations = trainer.validation.batches_per_epoch(0)
    assert seen.count(True) == 1
    assert seen.count(False) == 2 * validations


@pytest.fixture(autouse=True)
def random_state() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)
