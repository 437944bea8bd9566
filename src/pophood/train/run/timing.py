"""How long steps and evaluations take here and now, before the first step: what a plan is made from.

A run of several minutes times passes of which nothing is kept. In a short run no pass is wasted: the
gradients of step 1 are computed, timed, and used when the plan is made.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from pophood.train.loop.optimizer import NoOpOptimizer
from pophood.train.loop.step import Exploded, Gradients, gradients_of, losses_of, train_step
from pophood.train.run.clock import Pace

if TYPE_CHECKING:
    from pophood.train.data.dataset.batch import Batch
    from pophood.train.loop.trainer import Trainer

PASSES, PATIENCE = 3, 5.0  # passes that are timed, after one that is not, and seconds for all of them


class Begun(NamedTuple):
    """Step 1, of which the gradients are computed: its batches, and where the run stands after it."""

    batches: list[Batch]
    gradients: Gradients
    random: torch.Tensor
    place: tuple[int, int]
    seconds: float


def plan_steps(trainer: Trainer) -> int:
    """How many steps a run will have; minutes are turned into steps by timing a few passes."""
    settings = trainer.settings
    if settings.steps is not None:
        return settings.steps
    if settings.minutes is not None:  # the rest is for evaluating and saving
        return max(1, int(settings.minutes * 60 * 0.9 / seconds_per_step(trainer)))
    per_epoch = trainer.train.batches_per_epoch(0) / (settings.accumulation * trainer.world.size)
    return max(1, round((settings.epochs or 1.0) * per_epoch))


def seconds_per_step(trainer: Trainer, patience: float = PATIENCE) -> float:
    """The time of one step here and now, from fewer passes where they are slow: the clock is running.

    The first batches of the data, each once: documents differ, and what is held grows with them. Leaves
    weights, optimizer and random state as they were.
    """
    random = torch.get_rng_state()
    settings, epoch = trainer.settings, trainer.train.batches_per_epoch(0)
    times: list[float] = []
    idle = NoOpOptimizer([{"params": list(trainer.trained.values())}], settings)
    while len(times) < 2 or (len(times) <= PASSES and sum(times) < patience):
        together = min(settings.accumulation, 2)  # a second one finds the gradients of the first
        batches = [trainer.train.batch(0, (len(times) + i) % epoch) for i in range(together)]
        tensors = [trainer.tensors(batch) for batch in batches]
        begin = time.perf_counter()
        try:
            train_step(trainer.learner, idle, tensors, 0.0, settings.clip)
        except Exploded as error:
            raise trainer.exploded(error, batches) from None
        times.append(trainer.world.share(time.perf_counter() - begin) / together)
    torch.set_rng_state(random)
    return sorted(times[1:])[(len(times) - 1) // 2] * settings.accumulation


def begin_first_step(trainer: Trainer) -> float:
    """Compute the gradients of step 1, which the run then goes on from; the seconds that it took.

    Until then weights, random state and place in the data are as they were.
    """
    begin, random, place = time.perf_counter(), torch.get_rng_state(), (trainer.epoch, trainer.index)
    batches = trainer.next_batches()
    try:
        tensors = [trainer.tensors(batch) for batch in batches]
        gradients = gradients_of(trainer.learner, trainer.optimizer, tensors)
    except Exploded as error:
        raise trainer.exploded(error, batches) from None
    seconds, after = time.perf_counter() - begin, (trainer.epoch, trainer.index)
    trainer.begun = Begun(batches, gradients, torch.get_rng_state(), after, seconds)
    torch.set_rng_state(random)
    trainer.epoch, trainer.index = place
    return seconds


def pace_of(trainer: Trainer, step: float) -> Pace:
    """How fast steps are here and now, of which one takes `step` seconds without what a trunk computes."""
    if trainer.trunks is None:
        return Pace(step, step, 0)
    batch, accumulation = trainer.train.batch(0, 0), trainer.settings.accumulation
    begin = time.perf_counter()
    trainer.tensors(batch)
    states = trainer.world.share((time.perf_counter() - begin) * accumulation)
    early = math.ceil(trainer.train.batches_per_epoch(0) / (accumulation * trainer.world.size))
    return Pace(step + states, step + states * (1 - trainer.trunks.train.share), early)


def evaluating_pace_of(trainer: Trainer) -> Pace:
    """How fast one batch is evaluated here and now, the first time and later.

    Alone and without a trunk, its loss is kept: the evaluation before step 1 begins with it.
    """
    if trainer.validation is None:
        return Pace(0.0, 0.0, 0)
    begin = time.perf_counter()
    tensors = trainer.tensors(trainer.validation.batch(0, 0), held=True)
    states = time.perf_counter() - begin
    losses = losses_of(trainer.learner, [tensors])
    whole = time.perf_counter() - begin
    held = None if trainer.trunks is None else trainer.trunks.validation
    if trainer.world.alone and trainer.trunks is None:
        trainer.known = losses
    kept = 0.0 if held is None else held.share
    return Pace(whole, whole - kept * states, 1)
