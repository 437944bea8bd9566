"""Linear layers that split bfloat16 products into the shapes that oneDNN multiplies fast.

In bfloat16 oneDNN computes a product of 768 to 2047 rows and at most a thousand columns at half the rate of
one of 512 rows (1.1 against 2.1 TFLOP/s on two cores with AMX; docs/log.md), so such products are computed in
chunks of rows. In float32 nothing is split, and the bits are those of nn.Linear.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pophood.train.model.buffer_pool import take
from pophood.train.model.ops import apply

CHUNK_ROWS = 512
WHOLE_ROWS = 2048  # from this many rows on, the whole product is as fast as its chunks
WHOLE_COLUMNS = 1536  # and from this many columns on


def matmul(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b (+ bias): [T, K] x [K, N] -> [T, N]."""
    rows, columns = len(a), b.shape[1]
    if a.dtype is not torch.bfloat16:
        return a @ b if bias is None else torch.addmm(bias, a, b)
    out = take(rows, columns)
    split = CHUNK_ROWS < rows < WHOLE_ROWS and columns < WHOLE_COLUMNS
    size = CHUNK_ROWS if split else rows
    for start in range(0, rows, size):
        a_chunk, out_chunk = a[start : start + size], out[start : start + size]
        if bias is None:
            torch.mm(a_chunk, b, out=out_chunk)
        else:
            torch.addmm(bias, a_chunk, b, out=out_chunk)
    return out


class LinearFunction(torch.autograd.Function):
    """x W^T + b in bfloat16, with its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        return matmul(rows, weight.T, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        shape = gradients[0].shape[:-1]
        d_y = gradients[0].flatten(0, -2)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        d_x = matmul(d_y, weight).view(*shape, -1) if needs_x else None
        d_weight = d_y.T @ rows if needs_weight else None
        d_bias = d_y.sum(0) if needs_bias else None
        return d_x, d_weight, d_bias


class Linear(nn.Linear):
    """nn.Linear, computed with `matmul` in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        if x.dtype is not torch.bfloat16:
            return F.linear(x, self.weight, self.bias)
        return apply(LinearFunction, x, self.weight, self.bias)
