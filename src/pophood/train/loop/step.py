"""One training step: forward, loss, backward, clip, update. The loop around it is `trainer.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from pophood.train.distributed.sharding import DistributedModel
from pophood.train.loop.optimizer import Optimizer
from pophood.train.loop.optimizer import clip as clip_gradients
from pophood.train.model.loss import BatchTensors, evaluating


class LossDiverged(RuntimeError):
    """The loss or the gradient is not finite, or the loss is far too large; nothing was updated."""

    def __init__(self, text: str, batch: int | None = None, *, here: bool = True) -> None:
        super().__init__(text)
        self.batch = batch  # index of the step's batch that showed it; None: the step as a whole
        self.here = here  # whether it was a batch of this process


class StepResult(NamedTuple):
    """Mean loss over the targets (nats), their number, and the gradient's norm before clipping."""

    loss: float
    learned: int
    gradient: float


def train_step(
    model: DistributedModel,
    optimizer: Optimizer,
    batches: Sequence[BatchTensors],
    rate: float,
    clip: float,
    interrupt: Callable[[], None] = lambda: None,
    limit: float = math.inf,
    ready: tuple[float, int] | None = None,
) -> StepResult:
    """Update the model once from all batches; every target has the same weight, whichever batch it is in.

    Every process passes the same number of batches. `ready` is the result of `gradients_of` if the gradients
    are computed already.
    `interrupt` is called between two batches and may raise. Raises LossDiverged for a loss or gradient that
    is not finite, or a mean loss above `limit`. If anything is raised, weights and optimizer are unchanged.
    """
    loss, learned = ready or gradients_of(model, optimizer, batches, interrupt)
    norm = clip_gradients(optimizer, clip)
    if not (loss <= limit and math.isfinite(norm)):
        optimizer.zero_grad()
        raise LossDiverged(f"the loss is {loss:g} and the norm of the gradient {norm:g}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(loss, learned, norm)


def gradients_of(
    model: DistributedModel,
    optimizer: Optimizer,
    batches: Sequence[BatchTensors],
    interrupt: Callable[[], None] = lambda: None,
) -> tuple[float, int]:
    """Compute a step's gradients into the parameters; return the mean loss and the number of targets.

    If anything is raised, the gradients are dropped.
    """
    group = model.group
    learned = int(*group.sum(sum(batch.learned for batch in batches)))
    loss = 0.0
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        own = model.forward_backward(batch, 1.0 / max(learned, 1), last=last)
        loss += float(*group.sum(own))
        try:
            if not math.isfinite(loss):
                raise LossDiverged(f"the loss is {loss:g}", number, here=not math.isfinite(own))
            if not last:  # after the last batch only the cheap update is left, so the step is finished
                interrupt()
        except BaseException:
            optimizer.zero_grad()
            raise
    return loss, learned


def evaluate(
    model: DistributedModel, batches: Iterable[BatchTensors], known: tuple[float, int] = (0.0, 0)
) -> float:
    """Return the mean loss over the targets of all batches and processes, in nats, without learning.

    Every process passes the same number of batches; a batch may be without targets. `known` is the summed
    loss and the number of targets of batches that were evaluated before.
    """
    total, count = model.group.sum(*losses_of(model, batches, known))
    return total / max(count, 1)


def losses_of(
    model: DistributedModel, batches: Iterable[BatchTensors], known: tuple[float, int] = (0.0, 0)
) -> tuple[float, int]:
    """Return the summed loss of this process's batches, in nats, and the number of their targets."""
    loss, learned = known
    with torch.no_grad(), evaluating(model.model):
        for batch in batches:
            loss += float(model.loss(batch, 1.0)) / model.group.size
            learned += batch.learned
    return loss, learned
