"""Products with weight matrices, in the shapes in which this machine's library multiplies fast.

In bfloat16 oneDNN gives a product of 768 to 2047 rows with a thousand columns or fewer half the rate of one
of 512 rows (1.1 against 2.1 TFLOP/s on two cores with AMX; docs/log.md): such products are made in pieces.
In float32 nothing is cut, and the bits are those of nn.Linear.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pophood.train.model.buffer_pool import empty

PIECE = 512  # rows
MOST = 2048  # rows: from here on the whole is as fast as its pieces
WIDE = 1536  # columns: from here on too


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b (+ bias): [T, K] x [K, N] -> [T, N]."""
    rows, columns = len(a), b.shape[1]
    if a.dtype is not torch.bfloat16:
        return a @ b if bias is None else torch.addmm(bias, a, b)
    out = empty(rows, columns)
    piece = PIECE if PIECE < rows < MOST and columns < WIDE else rows
    for start in range(0, rows, piece):
        part, place = a[start : start + piece], out[start : start + piece]
        if bias is None:
            torch.mm(part, b, out=place)
        else:
            torch.addmm(bias, part, b, out=place)
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        return product(rows, weight.T, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        shape = gradients[0].shape[:-1]
        d_y = gradients[0].flatten(0, -2)
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        d_x = product(d_y, weight).view(*shape, -1) if wants_x else None
        d_weight = d_y.T @ rows if wants_weight else None
        d_bias = d_y.sum(0) if wants_bias else None
        return d_x, d_weight, d_bias


class Linear(nn.Linear):
    """nn.Linear, in bfloat16 by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if x.dtype is not torch.bfloat16:
            return F.linear(x, self.weight, self.bias)
        y: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y
