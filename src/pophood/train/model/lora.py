"""LoRA: a small trainable branch beside each frozen matrix: y = x W^T + b + scale * (x A^T) B^T.

`add_lora` wraps layers in place. A [r, in] starts random and B [out, r] at zero, so training starts from the
unchanged model (Hu et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pophood.errors import BadInput
from pophood.train.model.int8_linear import Int8Linear, Int8Weight, dense_weight, frozen_linear
from pophood.train.model.linear import matmul
from pophood.train.model.ops import apply
from pophood.train.model.transformer import Model
from pophood.train.settings import LoraSettings


class LoraFunction(torch.autograd.Function):
    """The whole layer as one autograd node. It adds the branch in place: no second [T, out] array exists."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | Int8Weight,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
    ) -> Tensor:
        rows = x.flatten(0, -2)
        a, b = a.to(x.dtype), b.to(x.dtype)
        hidden = rows @ a.T  # [T, r]
        y = matmul(rows, dense_weight(weight, x.dtype).T, bias)
        y.addmm_(hidden, b.T, alpha=scale)
        ctx.save_for_backward(rows, a, b, hidden)
        ctx.weight, ctx.scale = weight, scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        rows, a, b, hidden = ctx.saved_tensors
        shape = gradients[0].shape[:-1]
        d_y = gradients[0].flatten(0, -2)
        d_hidden = (d_y @ b).mul_(ctx.scale)  # [T, r]
        d_b = (d_y.T @ hidden).mul_(ctx.scale)
        d_a = d_hidden.T @ rows
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = matmul(d_y, dense_weight(ctx.weight, d_y.dtype)).addmm_(d_hidden, a).view(*shape, -1)
        return d_x, None, None, d_a.float(), d_b.float(), None


class LoraLinear(nn.Module):
    """A frozen linear layer with its LoRA branch."""

    def __init__(self, base: nn.Linear | Int8Linear, settings: LoraSettings) -> None:
        super().__init__()
        self.weight, self.bias = base.weight, base.bias
        self.scale, self.dropout = settings.scale, settings.dropout
        self.lora_a = nn.Parameter(torch.empty(settings.rank, base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, settings.rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as peft does

    def forward(self, x: Tensor) -> Tensor:
        if self.dropout and self.training:
            a, b = self.lora_a.to(x.dtype), self.lora_b.to(x.dtype)
            hidden = F.dropout(x, self.dropout) @ a.T
            return frozen_linear(x, self.weight, self.bias) + (hidden @ b.T) * self.scale
        return apply(LoraFunction, x, self.weight, self.bias, self.lora_a, self.lora_b, self.scale)


def add_lora(model: Model, settings: LoraSettings) -> None:
    """Freeze the model and wrap every targeted matrix, in place. Raises BadInput for an unknown target.

    The default targets include the gate of gated models; a model without gates ignores it.
    """
    model.requires_grad_(False)
    linears = list(_linears(model))
    known = {target for target, _, _ in linears}
    if wrong := sorted(set(settings.targets) - known - {"mlp.gate"}):
        raise BadInput(f"no matrix is called {', '.join(wrong)}; there are: {', '.join(sorted(known))}")
    for target, parent, layer in linears:
        if target in settings.targets:
            setattr(parent, target.partition(".")[2], LoraLinear(layer, settings))


def lora_layers(model: Model) -> dict[str, LoraLinear]:
    """Return the wrapped layers by their canonical matrix names, in order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def _linears(model: Model) -> Iterator[tuple[str, nn.Module, nn.Linear | Int8Linear]]:
    """Yield the linear layers of every block: their names as in "attn.q", their parents, and themselves."""
    for block in model.blocks:
        for part in ("attn", "mlp"):
            parent = block.get_submodule(part)
            for child, module in parent.named_children():
                if isinstance(module, (nn.Linear, Int8Linear)):
                    yield f"{part}.{child}", parent, module
