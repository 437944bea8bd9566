"""The plan of a run: steps, time, memory and disk, from a few timed passes on this machine.

The report compares the plan with the actual costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pophood.system import available_memory, free_disk
from pophood.train.loop.clock import Clock, Pace
from pophood.train.run.memory import remedies

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer

CHECKPOINTS = 2  # kept on disk
ON_THE_WAY, BRIEF_ON_THE_WAY = 0.1, 0.05  # shares of the minutes for evaluations, checkpoints and samples
# Shares of the minutes for one evaluation: the usual one, and the largest, to reach the next number.
EVALUATION, LARGEST_EVALUATION = 0.02, 0.04
FEWEST_POSITIONS = 2048  # of an evaluation, if the larger share allows it
WRITING, WRITING_SHARE = 2.0, 0.04  # seconds for writing a small result; at most this share of the minutes
SAMPLING = 0.25  # time of the samples after one evaluation, relative to measuring the model before the run
GROWTH = 1.05  # of memory during a run: holes in the heap, oneDNN's kernels (2 to 12 %, benchmarks/plans.py)
DISK_RATE = 400e6  # bytes per second, assumed until the first checkpoint is written


@dataclass(frozen=True, slots=True)
class Plan:
    """The expected steps, seconds and bytes of a run."""

    steps: int
    epochs: float
    seconds_per_step: float
    seconds_per_evaluation: float
    seconds_per_save: float
    evaluations: int
    seconds: float  # of the whole run
    reserve: float  # seconds for what follows the last step
    memory: int  # peak of this process, without mapped files
    free_memory: int
    disk: int
    free_disk: int
    advice: tuple[str, ...]
    validation_batches: int = 0
    seconds_between: float = 0.0  # per step, for evaluations, checkpoints and samples
    seconds_to_write: float = 0.0  # for the result and its report

    @property
    def fits(self) -> bool:
        """Return whether there is enough memory and disk."""
        return self.memory <= self.free_memory and self.disk <= self.free_disk

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        return asdict(self) | {"fits": self.fits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Return the plan of which `as_dict` returned these values."""
        fields = {name: value for name, value in values.items() if name != "fits"}
        return cls(**{**fields, "advice": tuple(values["advice"])})


class Timed(NamedTuple):
    """Results of calibration: the pace of steps and of evaluating one batch, bytes, and seconds.

    `rough` means that the step was the first one, which takes longer than the others.
    """

    step: Pace
    evaluation: Pace
    peak: int  # bytes of memory while the step was timed
    held: int  # bytes of memory after it
    rough: bool
    measuring: float = 0.0  # seconds that measuring the model took


def schedule(trainer: Trainer, timed: Timed, out: Path, elapsed: Callable[[], float]) -> Plan:
    """Plan the steps of the whole run; a run of minutes also gets its clock, which reconsiders them."""
    settings, group = trainer.settings, trainer.group
    parts = group.size if trainer.distributed.shard else 1
    checkpoint, result = checkpoint_bytes(trainer), _result_bytes(trainer)
    cached = trainer.caches.bytes if trainer.caches is not None else 0
    saving = checkpoint / DISK_RATE
    sampling = 0.0 if settings.brief else timed.measuring * SAMPLING
    total = None if settings.minutes is None else settings.minutes * 60
    batches = 0 if trainer.validation is None else trainer.validation.batches_per_epoch(0)
    passes = math.ceil(batches / group.size)
    evaluation = Pace(timed.evaluation.first * passes, timed.evaluation.later * passes, 1)
    writing = WRITING if total is None else min(WRITING, WRITING_SHARE * total)
    reserve = timed.measuring + evaluation.later + writing + saving + result / DISK_RATE
    evaluations, each = settings.evaluations, evaluation.later + saving + sampling
    if total is not None:
        share = BRIEF_ON_THE_WAY if settings.brief else ON_THE_WAY
        evaluations = min(evaluations, 1 + int(share * total / max(each, 1e-3)))
        trainer.clock = Clock(total, elapsed, timed.step, reserve, rough=timed.rough)
        trainer.clock.ending += evaluation.first + (evaluations - 1) * each  # still to come
        steps = max(1, trainer.clock.steps_left(0))
        trainer.clock.ending = reserve
        trainer.clock.between = (evaluations - 1) * each / steps
    else:
        steps = trainer.requested_steps() or 1
    steps = trainer.steps or steps
    per_epoch = trainer.train.batches_per_epoch(0) / (settings.accumulation * group.size)
    learning, often = timed.step.seconds(steps), min(evaluations, steps)
    memory = int((timed.peak + moments_bytes(trainer) // parts) * GROWTH)
    free = available_memory() // group.local_size + timed.held
    return Plan(
        steps=steps,
        epochs=steps / per_epoch,
        seconds_per_step=learning / steps,
        seconds_per_evaluation=evaluation.later,
        seconds_per_save=saving,
        evaluations=evaluations,
        seconds=elapsed() + learning + evaluation.first + (often - 1) * each + reserve,
        reserve=reserve,
        memory=memory,
        free_memory=free,
        disk=cached + checkpoint * (CHECKPOINTS + 1) + result,  # one more while it is written
        free_disk=free_disk(out.absolute().parent),
        advice=tuple(remedies(settings)) if memory > free else (),
        validation_batches=batches,
        seconds_to_write=writing,
        seconds_between=0.0 if trainer.clock is None else trainer.clock.between,
    )


def batches_in(total: float, trainer: Trainer, timed: Timed) -> int:
    """Return how many batches to validate with in a run of `total` seconds."""
    if trainer.validation is None:
        return 0
    seconds = max(timed.evaluation.later, 1e-6)
    positions = trainer.settings.batch_size * trainer.settings.length
    least = min(max(1, FEWEST_POSITIONS // positions), int(LARGEST_EVALUATION * total / seconds))
    return max(1, least, int(EVALUATION * total / seconds))


def moments_bytes(trainer: Trainer) -> int:
    """Return the bytes of AdamW's two moments, each as wide as the weights, in bfloat16 too."""
    return 2 * sum(p.nbytes for p in trainer.trained.values())


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return the bytes of a checkpoint: trained weights, the rest of their masters if any, two moments."""
    trained, remainders = trainer.trained, trainer.model.master_remainder
    rest = sum(remainder.nbytes for name, remainder in remainders.items() if name in trained)
    return sum(p.nbytes for p in trained.values()) + rest + moments_bytes(trainer)


def _result_bytes(trainer: Trainer) -> int:
    """Return the most bytes that the result can take, which is in float32."""
    only_trained = trainer.settings.method == "lora"
    written = trainer.trained.values() if only_trained else trainer.model.parameters()
    return 4 * sum(parameter.numel() for parameter in written)
