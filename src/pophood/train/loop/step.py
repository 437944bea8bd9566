"""One training step: forward, loss, backward, clip, update. The loop around it is `loop.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from pophood.train.data.dataset.batch import Batch
from pophood.train.distributed.sharding import Learner
from pophood.train.loop.optimizer import Optimizer
from pophood.train.loop.optimizer import clip as clip_gradients
from pophood.train.model.attention import Spans, spans_of
from pophood.train.model.loss import IGNORED
from pophood.train.model.transformer import Model


class Tensors(NamedTuple):
    """A batch as torch wants it: ids, targets and positions [B, T], and where its documents lie."""

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    spans: Spans
    states: torch.Tensor | None = None  # the stream [B, T, C] before block `first`, where it is known already
    first: int = 0

    @classmethod
    def of(cls, batch: Batch) -> Tensors:
        """Hand a batch of NumPy arrays over."""
        tokens, targets, positions = (
            torch.from_numpy(array) for array in (batch.tokens, batch.targets, batch.positions)
        )
        return cls(tokens, targets, positions, spans_of(batch.documents))

    def to(self, device: str) -> Tensors:
        """The same on a device."""
        states = None if self.states is None else self.states.to(device)
        tokens, targets, positions = (x.to(device) for x in (self.tokens, self.targets, self.positions))
        return Tensors(tokens, targets, positions, self.spans.to(device), states, self.first)

    @property
    def learned(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORED).sum())

    def hidden(self, model: Model) -> torch.Tensor:
        """What the model makes of them: [B, T, C] after the final norm."""
        if self.states is None:
            return model(self.tokens, self.positions, self.spans)  # type: ignore[no-any-return]
        return model.from_block(self.states, self.positions, self.spans, self.first)

    def unlearned(self) -> Tensors:
        """The same with no target that counts."""
        return self._replace(targets=torch.full_like(self.targets, IGNORED))


class Exploded(RuntimeError):
    """The loss or the gradient is no longer a number to learn from; nothing was updated."""

    def __init__(self, text: str, batch: int | None = None, *, here: bool = True) -> None:
        super().__init__(text)
        self.batch = batch  # which of the step's batches showed it; None: all of them together
        self.here = here  # whether it was that of this process


class StepResult(NamedTuple):
    """Mean loss over the learned targets (nats), their number, and the gradient's length before clipping."""

    loss: float
    learned: int
    gradient: float


class Gradients(NamedTuple):
    """Gradients that lie in the parameters: the mean loss they are of, and how many targets were learned."""

    loss: float
    learned: int


def train_step(
    learner: Learner,
    optimizer: Optimizer,
    batches: Sequence[Tensors],
    rate: float,
    clip: float,
    interrupt: Callable[[], None] = lambda: None,
    limit: float = math.inf,
    begun: Gradients | None = None,
) -> StepResult:
    """Learn from the batches as one: every learned target weighs the same, whichever batch or process has it.

    Every process brings as many batches. With `begun` the gradients are there already. Raises Exploded for a
    loss or gradient that is not finite, or a mean loss above `limit`, and what `interrupt` (asked between two
    batches) raises; weights and optimizer are then untouched.
    """
    loss, learned = begun or gradients_of(learner, optimizer, batches, interrupt)
    norm = clip_gradients(optimizer, clip)
    if not (loss <= limit and math.isfinite(norm)):
        optimizer.zero_grad()
        raise Exploded(f"the loss is {loss:g} and the gradient's length {norm:g}")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(loss, learned, norm)


def gradients_of(
    learner: Learner,
    optimizer: Optimizer,
    batches: Sequence[Tensors],
    interrupt: Callable[[], None] = lambda: None,
) -> Gradients:
    """Compute the gradients of a step into the parameters; raises as `train_step`, and lets go of them."""
    world = learner.world
    learned = int(*world.sum(sum(batch.learned for batch in batches)))
    loss = 0.0
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        part = learner.learn(batch, 1.0 / max(learned, 1), last=last)
        loss += float(*world.sum(part))
        try:
            if not math.isfinite(loss):
                raise Exploded(f"the loss is {loss:g}", number, here=not math.isfinite(part))
            if not last:  # after the last one the step is as good as made
                interrupt()
        except BaseException:
            optimizer.zero_grad()
            raise
    return Gradients(loss, learned)


def evaluate(learner: Learner, batches: Iterable[Tensors], known: tuple[float, int] = (0.0, 0)) -> float:
    """Mean loss over the learned targets of all batches, in nats; nothing is learned.

    Every process brings as many batches; a batch without a learned target is one more. `known` is the sum of
    the losses, and the number of targets, of batches before these.
    """
    total, count = learner.world.sum(*losses_of(learner, batches, known))
    return total / max(count, 1)


@torch.no_grad()
def losses_of(
    learner: Learner, batches: Iterable[Tensors], known: tuple[float, int] = (0.0, 0)
) -> tuple[float, int]:
    """The sum of the losses of this process's batches, in nats, and how many targets it is of."""
    was = learner.model.training
    learner.model.eval()
    loss, learned = known
    try:
        for batch in batches:
            loss += float(learner.loss(batch, 1.0)) / learner.world.size
            learned += batch.learned
    finally:
        learner.model.train(was)
    return loss, learned
