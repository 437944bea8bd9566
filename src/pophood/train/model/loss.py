"""Cross-entropy fused with the output matrix: logits exist for a few rows at a time, never all of them.

For 1,024 tokens of GPT-2 the logits alone are 206 MB, and the usual way holds them three times. Here each
piece's gradient is computed while its logits are there, so that backward has nothing left to do.

In bfloat16 native walks make the gradient of the logits in their place. They stand as columns, [V, rows],
where the processor multiplies tiles (AMX): two of the three products then run at twice the rate. Elsewhere
they stand as rows, which is a fifth faster there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pophood.train.model.ops import bits, native, threads, training

IGNORED = -100
ROWS = 256  # 26 MB of logits for 50,257 tokens; with AMX, a product of twice as many is a fifth slower
ROUND = 32  # rows: oneDNN keeps a program for every shape
AS_COLUMNS = bool(torch.cpu._is_amx_tile_supported())


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        if native(hidden):
            d_weight = torch.empty_like(weight) if wants_weight else None
            for start in range(0, len(hidden), ROWS):
                total += _piece(hidden, weight, targets, scale, start, d_hidden, d_weight)
            ctx.save_for_backward(d_hidden, d_weight)
            return total * scale
        d_weight = torch.zeros_like(weight) if wants_weight else None
        for start in range(0, len(hidden), ROWS):
            rows, wanted = hidden[start : start + ROWS], targets[start : start + ROWS]
            logits = (rows @ weight.T).float()  # [rows, V]
            mass = logits.logsumexp(-1, keepdim=True)
            at = wanted[:, None]
            total += (mass - logits.gather(1, at)).sum()
            if d_hidden is None and d_weight is None:
                continue
            gradient = logits.sub_(mass).exp_()  # softmax
            gradient.scatter_add_(1, at, torch.full_like(mass, -1.0))
            gradient = gradient.mul_(scale).to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(gradient, weight, out=d_hidden[start : start + ROWS])
            if d_weight is not None:
                d_weight.addmm_(gradient.T, rows)
        ctx.save_for_backward(d_hidden, d_weight)
        return total * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (factor,) = gradients
        d_hidden, d_weight = ctx.saved_tensors
        if factor.item() != 1.0:  # an outer scale, such as none of ours
            d_hidden = None if d_hidden is None else d_hidden * factor
            d_weight = None if d_weight is None else d_weight * factor
        return d_hidden, d_weight, None, None


def _piece(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: float,
    start: int,
    d_hidden: Tensor | None,
    d_weight: Tensor | None,
) -> float:
    """The summed loss of one piece; its gradients go into their places (`d_weight` is added to)."""
    rows, wanted = hidden[start : start + ROWS], targets[start : start + ROWS]
    count = len(rows)
    if short := -count % ROUND:  # zeros, which have no gradient
        rows, wanted = F.pad(rows, (0, 0, 0, short)), F.pad(wanted, (0, short))
    if AS_COLUMNS:
        logits = torch.mm(weight, rows.T, out=_room(len(weight), len(rows)))
    else:
        logits = torch.mm(rows, weight.T, out=_room(len(rows), len(weight)))
    loss = np.empty(len(rows), np.float32)
    learns = d_hidden is not None or d_weight is not None
    training.cross_entropy(
        bits(logits), wanted.numpy(), scale if learns else 0.0, loss, AS_COLUMNS, threads()
    )
    columns = logits if AS_COLUMNS else logits.T  # [V, rows]
    if d_hidden is not None:
        if short:
            d_hidden[start:] = torch.mm(columns.T, weight)[:count]
        else:
            torch.mm(columns.T, weight, out=d_hidden[start : start + ROWS])
    if d_weight is not None:
        torch.addmm(d_weight, columns, rows, beta=min(start, 1), out=d_weight)
    return float(loss[:count].sum(dtype=np.float64))


_logits: list[Tensor] = []  # one piece's, kept: fresh pages take longer to get than to fill


def _room(rows: int, columns: int) -> Tensor:
    size = rows * columns
    if not _logits or _logits[0].numel() < size:
        _logits[:] = [torch.empty(size, dtype=torch.bfloat16)]
    return _logits[0][:size].view(rows, columns)


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> Tensor:
    """Sum over the learned targets of -log p(target), times `scale` (such as 1 / their number); in nats.

    `hidden` [B, T, C] after the final norm, `weight` [V, C], `targets` [B, T]; rows whose target is -100 are
    not learned and left out before the product. Equal to torch's cross_entropy of the logits.
    """
    learned = targets.flatten() != IGNORED
    rows = hidden.flatten(0, 1)
    if not bool(learned.all()):
        rows = rows[learned]
    result: Tensor = _FusedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, weight, targets.flatten()[learned], scale
    )
    return result
