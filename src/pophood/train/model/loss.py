"""The loss of a batch: cross-entropy fused with the output matrix, so that few rows have logits at a time.

The logits of 1,024 tokens of GPT-2 take 206 MB, and the usual implementation holds them three times. Here the
gradient of each chunk is computed while its logits exist, which leaves nothing to compute for backward.

In bfloat16 a native kernel replaces the logits by their gradient. On processors with AMX the logits are laid
out as columns, [V, rows]: two of the three products then run at twice the rate. On others they are laid out
as rows, which is a fifth faster there.

`LossModule` runs model and loss in one forward pass, because the output matrix is used outside the model's
own `forward`. DDP has to see every gradient arrive and FSDP every weight that is needed, and both watch only
the module they wrap.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pophood.train.data.dataset.packing import IGNORED, Batch
from pophood.train.model import torch_private
from pophood.train.model.attention import DocumentGroup, Spans, spans_of
from pophood.train.model.ops import apply, bits, num_threads, training, uses_native
from pophood.train.model.transformer import Model

CHUNK_ROWS = 256  # 26 MB of logits for 50,257 tokens; with AMX, twice as many rows are a fifth slower
ROUND_ROWS = 32  # row counts are multiples of this, because oneDNN compiles a program for every shape


@cache
def logits_as_columns() -> bool:
    """Return whether logits are laid out as [V, rows] rather than [rows, V]."""
    return torch_private.has_amx()


class CrossEntropyFunction(torch.autograd.Function):
    """The summed cross-entropy of hidden states and output matrix; forward computes both gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, cap: float | None
    ) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        if cap is None and uses_native(hidden):
            d_weight = torch.empty_like(weight) if needs_weight else None
            for start in range(0, len(hidden), CHUNK_ROWS):
                total += _native_chunk(hidden, weight, targets, scale, start, d_hidden, d_weight)
            ctx.save_for_backward(d_hidden, d_weight)
            return total * scale
        d_weight = torch.zeros_like(weight) if needs_weight else None
        for start in range(0, len(hidden), CHUNK_ROWS):
            rows, wanted = hidden[start : start + CHUNK_ROWS], targets[start : start + CHUNK_ROWS]
            logits = (rows @ weight.T).float()  # [rows, V]
            logits = logits if cap is None else cap * torch.tanh(logits / cap)
            slope = None if cap is None else 1.0 - (logits / cap) ** 2
            logsumexp = logits.logsumexp(-1, keepdim=True)
            index = wanted[:, None]
            total += (logsumexp - logits.gather(1, index)).sum()
            if d_hidden is None and d_weight is None:
                continue
            gradient = logits.sub_(logsumexp).exp_()  # softmax
            gradient.scatter_add_(1, index, torch.full_like(logsumexp, -1.0))
            gradient = gradient if slope is None else gradient.mul_(slope)
            gradient = gradient.mul_(scale).to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(gradient, weight, out=d_hidden[start : start + CHUNK_ROWS])
            if d_weight is not None:
                d_weight.addmm_(gradient.T, rows)
        ctx.save_for_backward(d_hidden, d_weight)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (factor,) = gradients
        d_hidden, d_weight = ctx.saved_tensors
        if factor.item() != 1.0:  # only if a caller scales the loss; our own code never does
            d_hidden = None if d_hidden is None else d_hidden * factor
            d_weight = None if d_weight is None else d_weight * factor
        return d_hidden, d_weight, None, None, None


def _native_chunk(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float,
    start: int,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
) -> float:
    """Return the summed loss of one chunk; write its rows of `d_hidden` and add to `d_weight`."""
    rows, wanted = hidden[start : start + CHUNK_ROWS], targets[start : start + CHUNK_ROWS]
    count = len(rows)
    if padding := -count % ROUND_ROWS:  # rows of zeros, which have no gradient
        rows, wanted = F.pad(rows, (0, 0, 0, padding)), F.pad(wanted, (0, padding))
    as_columns = logits_as_columns()
    left, right = (weight, rows.T) if as_columns else (rows, weight.T)
    logits = torch.mm(left, right, out=_logits_buffer(len(left), right.shape[1]))
    loss = np.empty(len(rows), np.float32)
    needs_gradient = d_hidden is not None or d_weight is not None
    training.cross_entropy(
        bits(logits), wanted.numpy(), scale if needs_gradient else 0.0, loss, as_columns, num_threads()
    )
    columns = logits if as_columns else logits.T  # [V, rows]
    if d_hidden is not None:
        if padding:
            d_hidden[start:] = torch.mm(columns.T, weight)[:count]
        else:
            torch.mm(columns.T, weight, out=d_hidden[start : start + CHUNK_ROWS])
    if d_weight is not None:
        torch.addmm(d_weight, columns, rows, beta=min(start, 1), out=d_weight)
    return float(loss[:count].sum(dtype=np.float64))


_logits: list[Tensor] = []  # the buffer of one chunk, reused because fresh pages cost more than filling them


def _logits_buffer(rows: int, columns: int) -> Tensor:
    size = rows * columns
    if not _logits or _logits[0].numel() < size:
        _logits[:] = [torch.empty(size, dtype=torch.bfloat16)]
    return _logits[0][:size].view(rows, columns)


def cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, cap: float | None = None
) -> Tensor:
    """Return the sum of -log p(target) over the learned targets, in nats, times `scale`.

    `hidden` [B, T, C] comes after the final norm; `weight` is [V, C] and `targets` [B, T]. Positions whose
    target is -100 are not learned and are left out before the product. The result equals torch's
    cross_entropy of the logits, which are capped if `cap` says so (Gemma 2).
    """
    learned = targets.flatten() != IGNORED
    rows = hidden.flatten(0, 1)
    if not bool(learned.all()):
        rows = rows[learned]
    return apply(CrossEntropyFunction, rows, weight, targets.flatten()[learned], scale, cap)


class BatchTensors(NamedTuple):
    """A batch as tensors: token ids, targets and positions [B, T], and the spans of its documents.

    With `states` [B, T, C], the cached hidden states before block `first`, the blocks below are not run.
    """

    tokens: Tensor
    targets: Tensor
    positions: Tensor
    spans: Spans
    states: Tensor | None = None
    first: int = 0

    @classmethod
    def of(cls, batch: Batch) -> BatchTensors:
        """Wrap a batch's NumPy arrays, without copying them."""
        arrays = (batch.tokens, batch.targets, batch.positions)
        tokens, targets, positions = map(torch.from_numpy, arrays)
        return cls(tokens, targets, positions, spans_of(batch.documents))

    def to(self, device: str) -> BatchTensors:
        """Return the batch on a device."""
        moved: dict[str, Any] = {
            name: x.to(device) for name, x in self._asdict().items() if isinstance(x, Tensor)
        }
        spans = tuple(DocumentGroup(*(x.to(device) for x in group)) for group in self.spans)
        return self._replace(**moved, spans=spans)

    @property
    def learned(self) -> int:
        """Number of targets that count."""
        return int((self.targets != IGNORED).sum())

    def without_targets(self) -> BatchTensors:
        """Return the batch with every target ignored, so that it adds nothing to a loss."""
        return self._replace(targets=torch.full_like(self.targets, IGNORED))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without dropout, inside the block."""
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

    def forward(self, batch: BatchTensors, scale: float) -> Tensor:
        """Return the cross-entropy summed over the batch's targets, times `scale`, in nats."""
        hidden = hidden_states(self.model, batch)
        cap = self.model.config.logit_cap
        return cross_entropy(hidden, self.model.output_weight, batch.targets, scale, cap)


def hidden_states(model: Model, batch: BatchTensors) -> Tensor:
    """Return the hidden states [B, T, C] of a batch after the final norm."""
    if batch.states is None:
        return model(batch.tokens, batch.positions, batch.spans)  # type: ignore[no-any-return]
    return model.from_block(batch.states, batch.positions, batch.spans, batch.first)
