"""Timing of steps and evaluations on this machine, before the first step, to plan the run.

A run of several minutes times passes whose results are dropped. In a short run no pass is wasted: the
gradients of step 1 are computed and timed, and used once the plan is made.
"""

from __future__ import annotations

import math
import time

import torch

from pophood.train.loop.clock import Pace
from pophood.train.loop.optimizer import NoOpOptimizer
from pophood.train.loop.step import LossDiverged, gradients_of, losses_of, train_step
from pophood.train.loop.trainer import ComputedStep, Trainer

PASSES, TIMING_SECONDS = 3, 5.0  # timed passes, after one that is not timed, and the seconds for all of them


def seconds_per_step(trainer: Trainer, patience: float = TIMING_SECONDS) -> float:
    """Return the seconds that a step takes on this machine; slow passes are timed less often (`patience`).

    Uses the first batches of the data, each once, because documents differ and the memory in use grows with
    them. Weights, optimizer and random state stay as they were.
    """
    random = torch.get_rng_state()
    settings, epoch = trainer.settings, trainer.train.batches_per_epoch(0)
    times: list[float] = []
    no_op = NoOpOptimizer([{"params": list(trainer.trained.values())}], settings)
    while len(times) < 2 or (len(times) <= PASSES and sum(times) < patience):
        together = min(settings.accumulation, 2)  # the second batch adds to the gradients of the first
        batches = [trainer.train.batch(0, (len(times) + i) % epoch) for i in range(together)]
        tensors = [trainer.tensors(batch) for batch in batches]
        begin = time.perf_counter()
        try:
            train_step(trainer.distributed, no_op, tensors, 0.0, settings.clip)
        except LossDiverged as error:
            raise trainer.diverged(error, batches) from None
        times.append(trainer.group.broadcast(time.perf_counter() - begin) / together)
    torch.set_rng_state(random)
    return sorted(times[1:])[(len(times) - 1) // 2] * settings.accumulation


def compute_first_step(trainer: Trainer) -> float:
    """Compute the gradients of step 1, which the run then starts with, and return the seconds that it took.

    Until the run starts, its weights, random state and place in the data stay as they were.
    """
    begin, random, place = time.perf_counter(), torch.get_rng_state(), (trainer.epoch, trainer.index)
    batches = trainer.next_batches()
    try:
        tensors = [trainer.tensors(batch) for batch in batches]
        gradients = gradients_of(trainer.distributed, trainer.optimizer, tensors)
    except LossDiverged as error:
        raise trainer.diverged(error, batches) from None
    seconds, after = time.perf_counter() - begin, (trainer.epoch, trainer.index)
    trainer.computed_step = ComputedStep(batches, gradients, torch.get_rng_state(), after, seconds)
    torch.set_rng_state(random)
    trainer.epoch, trainer.index = place
    return seconds


def step_pace(trainer: Trainer, step: float) -> Pace:
    """Return the pace of steps, one of which takes `step` seconds without filling the activation cache."""
    if trainer.caches is None:
        return Pace(step, step, 0)
    batch, accumulation = trainer.train.batch(0, 0), trainer.settings.accumulation
    begin = time.perf_counter()
    trainer.tensors(batch)
    states = trainer.group.broadcast((time.perf_counter() - begin) * accumulation)
    early = math.ceil(trainer.train.batches_per_epoch(0) / (accumulation * trainer.group.size))
    return Pace(step + states, step + states * (1 - trainer.caches.train.share), early)


def evaluation_pace(trainer: Trainer) -> Pace:
    """Return how long evaluating one batch takes, the first time and later.

    In a single process without an activation cache, the evaluation before step 1 then starts with its loss.
    """
    if trainer.validation is None:
        return Pace(0.0, 0.0, 0)
    begin = time.perf_counter()
    tensors = trainer.tensors(trainer.validation.batch(0, 0), held_out=True)
    states = time.perf_counter() - begin
    losses = losses_of(trainer.distributed, [tensors])
    whole = time.perf_counter() - begin
    cache = None if trainer.caches is None else trainer.caches.validation
    if trainer.group.alone and trainer.caches is None:
        trainer.known_losses = losses
    cached = 0.0 if cache is None else cache.share
    return Pace(whole, whole - cached * states, 1)
