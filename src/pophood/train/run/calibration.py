"""Before the first step: what the model can do as it is, how long a step takes here, and the plan from both.

Each part is an event, so that a person sees from the first second what is being done. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pophood.errors import Cancelled
from pophood.train.distributed.shared_folder import agreed
from pophood.train.events import Event, Measuring
from pophood.train.report.measures import GENERAL, SAMPLES, VERBATIM, Measures, measure
from pophood.train.run.clock import Clock, Pace
from pophood.train.run.plan import Plan, Timed, refuse_unfit, schedule, time_step

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer
    from pophood.train.run.tuning import Tuning

MEASURING, TIMING = 0.05, 0.04  # shares of the minutes for measuring the model, and for timing steps
PATIENCE = 5.0  # seconds for timing steps where no minutes are given
STEP, VALIDATION = "a step", "validation loss"
NOTHING_WRITTEN = "stopped before the first step: nothing was written"
T = TypeVar("T")


def calibrating(tuning: Tuning) -> Generator[Event, None, tuple[Trainer, Plan]]:
    """Measure and time, with an event before each part; the trainer and its plan.

    Raises Cancelled between two parts where a stop is asked for, OutOfMemory for a run that cannot fit.
    """
    if tuning.resumed is not None:
        return _resumed(tuning)
    world, minutes = tuning.world, tuning.settings.minutes
    parts = [*((SAMPLES, GENERAL, VERBATIM) if world.first else ()), STEP]
    parts += [VALIDATION] if len(tuning.data.validation) else []
    yield _part(tuning, parts, parts[0])  # before anything that takes a while, as importing torch does
    world.by_first(partial(refuse_unfit, tuning.lm.config, tuning.settings, world, tuning.shard))
    if world.first:
        seconds = None if minutes is None else minutes * 60 * MEASURING
        tuning.before = yield from _parts(
            tuning, parts, measure(tuning.lm, tuning.data, tuning.prompts, seconds)
        )
    if world.first:
        yield _part(tuning, parts, STEP)
    trainer = tuning.trainer()
    rough = tuning.brief and world.alone
    patience = PATIENCE if minutes is None else min(PATIENCE, minutes * 60 * TIMING)
    step, peak = time_step(trainer, rough=rough, patience=patience)
    if VALIDATION in parts:
        yield _part(tuning, parts, VALIDATION)
    from pophood.train.run.timing import evaluating_pace_of

    timed = Timed(step, evaluating_pace_of(trainer), peak.bytes, peak.now, rough)
    return trainer, agreed(schedule(trainer, tuning, timed), world)


def drained(parts: Generator[object, None, T]) -> T:
    """The value that a generator returns at its end."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: T = end.value
            return result


def _parts(
    tuning: Tuning, parts: list[str], measuring: Generator[str, None, Measures]
) -> Generator[Event, None, Measures]:
    while True:
        try:
            what = next(measuring)
        except StopIteration as end:
            measures: Measures = end.value
            return measures
        if what != parts[0]:
            yield _part(tuning, parts, what)


def _part(tuning: Tuning, parts: list[str], what: str) -> Measuring:
    if tuning.world.alone and tuning.should_stop() is not None:
        raise Cancelled(NOTHING_WRITTEN)
    return Measuring(parts.index(what) + 1, len(parts), what)


def _resumed(tuning: Tuning) -> tuple[Trainer, Plan]:
    """The trainer of a run that goes on, with what was planned for it and what its steps took so far."""
    tuning.before, plan, minutes = tuning.folder.before(), tuning.folder.plan(), tuning.settings.minutes
    positions = plan.validation_batches * tuning.settings.batch_size * tuning.settings.length
    trainer = tuning.trainer(positions)
    if minutes is not None and plan.seconds_per_step > 0 and tuning.resumed is not None:
        pace = Pace(plan.seconds_per_step, plan.seconds_per_step, 0)
        ratio = float(tuning.resumed[1].get("ratio", 1.0))
        trainer.clock = Clock(
            minutes * 60, lambda: tuning.seconds, pace, plan.reserve, plan.seconds_between, ratio=ratio
        )
        trainer.clock.shortest = min(1.0, ratio)
    return trainer, plan
