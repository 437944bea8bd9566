"""From a batch to its loss: the batch as torch tensors, and the module that runs model and loss on it.

Model and loss are one forward pass, because the output matrix is used outside the model's own `forward`.
DDP has to see every gradient arrive and FSDP every weight that is needed, and both watch only the module
they wrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from pophood.train.data.dataset.packing import IGNORED, Batch
from pophood.train.model.attention import DocumentGroup, Spans, spans_of
from pophood.train.model.loss import cross_entropy
from pophood.train.model.transformer import Model


class BatchTensors(NamedTuple):
    """A batch as tensors: token ids, targets and positions [B, T], and the spans of its documents.

    With `states` [B, T, C], the cached hidden states before block `first`, the blocks below are not run.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    spans: Spans
    states: torch.Tensor | None = None
    first: int = 0

    @classmethod
    def of(cls, batch: Batch) -> BatchTensors:
        """Wrap a batch's NumPy arrays, without copying them."""
        tokens, targets, positions = (
            torch.from_numpy(array) for array in (batch.tokens, batch.targets, batch.positions)
        )
        return cls(tokens, targets, positions, spans_of(batch.documents))

    def to(self, device: str) -> BatchTensors:
        """Return the batch on a device."""
        states = None if self.states is None else self.states.to(device)
        tokens, targets, positions = (x.to(device) for x in (self.tokens, self.targets, self.positions))
        spans = tuple(DocumentGroup(*(x.to(device) for x in group)) for group in self.spans)
        return BatchTensors(tokens, targets, positions, spans, states, self.first)

    @property
    def learned(self) -> int:
        """Number of targets that count."""
        return int((self.targets != IGNORED).sum())

    def without_targets(self) -> BatchTensors:
        """Return the batch with every target ignored, so that it adds nothing to a loss."""
        return self._replace(targets=torch.full_like(self.targets, IGNORED))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model without dropout inside the block."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class LossModule(nn.Module):
    """A model and its loss as one module, for DDP and FSDP to wrap."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: BatchTensors, scale: float) -> torch.Tensor:
        """Return the cross-entropy summed over the batch's targets, times `scale`, in nats."""
        hidden = hidden_states(self.model, batch)
        return cross_entropy(hidden, self.model.output_weight, batch.targets, scale)


def hidden_states(model: Model, batch: BatchTensors) -> torch.Tensor:
    """Return the hidden states [B, T, C] of a batch after the final norm."""
    if batch.states is None:
        return model(batch.tokens, batch.positions, batch.spans)  # type: ignore[no-any-return]
    return model.from_block(batch.states, batch.positions, batch.spans, batch.first)
