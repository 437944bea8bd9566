"""Calibration before the first step: measure the model, time a step here, and plan the run from both.

Each part starts with an event, so that the user sees from the first second what is going on. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pophood.errors import Cancelled
from pophood.train.events import Event, Measuring
from pophood.train.loop.clock import Clock, Pace
from pophood.train.report.measures import GENERAL, SAMPLES, VERBATIM, Measures, measure
from pophood.train.run.plan import PeakMemory, Plan, Timed, batches_in, refuse_unfit, schedule
from pophood.train.run.setup import RunSetup, validation_batches
from pophood.train.torch_install import import_torch

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer

MEASURING_SHARE, TIMING_SHARE = 0.05, 0.04  # of the minutes
STEP, VALIDATION = "a step", "validation loss"
NOTHING_WRITTEN = "stopped before the first step: nothing was written"
T = TypeVar("T")


class Calibration(NamedTuple):
    """A trainer that is ready to run, the measures of its model before training, and the plan."""

    trainer: Trainer
    before: Measures | None  # None on all ranks but 0
    plan: Plan


def calibrate(
    setup: RunSetup,
    make_trainer: Callable[[], Trainer],
    elapsed: Callable[[], float],
    should_stop: Callable[[], str | None],
) -> Generator[Event, None, Calibration]:
    """Measure and time, with an event before each part; `elapsed` gives the seconds since the run began.

    Raises Cancelled if a stop is requested between two parts, OutOfMemory for a run that cannot fit.
    """
    group, minutes = setup.group, setup.settings.minutes
    parts = [*((SAMPLES, GENERAL, VERBATIM) if group.is_rank_zero else ()), STEP]
    parts += [VALIDATION] if len(setup.data.validation) else []

    def start(part: str) -> Measuring:
        if group.alone and should_stop() is not None:
            raise Cancelled(NOTHING_WRITTEN)
        return Measuring(parts.index(part) + 1, len(parts), part)

    yield start(parts[0])  # before anything slow, such as importing torch
    import_torch()
    group.on_rank_zero(partial(refuse_unfit, setup.lm.config, setup.settings, group, setup.shard))
    before = None
    if group.is_rank_zero:
        seconds = None if minutes is None else minutes * 60 * MEASURING_SHARE
        before = yield from measure(setup.lm, setup.data, setup.prompts, seconds, start)
        yield start(STEP)
    trainer = make_trainer()
    step, peak, rough = _time_step(trainer, setup)
    if VALIDATION in parts:
        yield start(VALIDATION)
    from pophood.train.run.timing import evaluation_pace

    measured = 0.0 if before is None else before.seconds
    timed = Timed(step, evaluation_pace(trainer), peak.bytes, peak.now, rough, measured)
    if minutes is not None:
        limit_validation(trainer, setup, group.broadcast(batches_in(minutes * 60, trainer, timed)))
    plan = schedule(trainer, timed, setup.out, elapsed)
    return Calibration(trainer, before, Plan.from_dict(group.broadcast(plan.as_dict())))


def _time_step(trainer: Trainer, setup: RunSetup) -> tuple[Pace, PeakMemory, bool]:
    """Time step 1 itself (the third value) in a brief run, and otherwise a few passes."""
    from pophood.train.run.timing import TIMING_SECONDS, compute_first_step, seconds_per_step, step_pace

    minutes, rough = setup.settings.minutes, setup.settings.brief and setup.group.alone
    patience = TIMING_SECONDS if minutes is None else min(TIMING_SECONDS, minutes * 60 * TIMING_SHARE)
    with PeakMemory() as peak:
        seconds = compute_first_step(trainer) if rough else seconds_per_step(trainer, patience)
        pace = step_pace(trainer, seconds)
    return pace, peak, rough


def limit_validation(trainer: Trainer, setup: RunSetup, batches: int) -> None:
    """Validate with at most this many batches, spread evenly; batches that are cached stay as they are."""
    if trainer.validation is None or trainer.caches is not None:
        return
    if batches < trainer.validation.batches_per_epoch(0):
        positions = batches * setup.settings.batch_size * setup.settings.length
        trainer.validation = validation_batches(setup, positions)


def resume_clock(trainer: Trainer, plan: Plan, ratio: float, elapsed: Callable[[], float]) -> None:
    """Give a resumed run of minutes its clock back; `ratio`: duration of recent steps over the plan's."""
    minutes = trainer.settings.minutes
    if minutes is None or plan.seconds_per_step <= 0:
        return
    pace = Pace(plan.seconds_per_step, plan.seconds_per_step, 0)
    trainer.clock = Clock(minutes * 60, elapsed, pace, plan.reserve, plan.seconds_between, ratio=ratio)
    trainer.clock.shortest = min(1.0, ratio)


def last_value(parts: Generator[object, None, T]) -> T:
    """Run a generator to its end and return its value."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: T = end.value
            return result
