"""The 8-bit base of LoRA: frozen int8 matrices with one scale per 32 inputs, dequantized for each product.

Each row of a matrix [out, in] is cut into groups of 32. A group w is stored as round(w / s) with
s = max |w| / 127: symmetric, like Q8_0 in GGUF, but with a float32 scale, so 32 weights take 36 bytes. Every
product, forward or backward, dequantizes the matrix and drops the result afterwards. Embeddings, the output
matrix, norms and biases are not quantised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pophood.config import ModelConfig, tensor_shapes
from pophood.train.model.linear import matmul
from pophood.train.model.ops import apply
from pophood.train.model.transformer import DropoutRates, Model

GROUP = 32  # inputs per scale
Arrays = Mapping[str, NDArray[np.float32]]


class Int8Weight(nn.Module):
    """A frozen int8 matrix [out, in]. No weight is off by more than half its group's scale."""

    values: Tensor  # [out, groups, 32], int8
    scales: Tensor  # [out, groups, 1], float32

    def __init__(self, matrix: Tensor) -> None:
        """Quantise `matrix`; rows are padded with zeros to a multiple of 32 inputs."""
        super().__init__()
        self.shape = matrix.shape
        padded = F.pad(matrix.detach().float(), (0, -matrix.shape[1] % GROUP))
        groups = padded.view(len(padded), -1, GROUP)
        scales = groups.abs().amax(-1, keepdim=True) / 127
        values = (groups / scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().clamp_(-127, 127)
        self.register_buffer("values", values.to(torch.int8))
        self.register_buffer("scales", scales)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the matrix [out, in] as a new dense tensor."""
        if dtype is torch.float32:
            groups = self.values.to(dtype).mul_(self.scales)
        else:
            groups = torch.mul(self.values, self.scales, out=torch.empty_like(self.values, dtype=dtype))
        return groups.flatten(1)[:, : self.shape[1]]

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + self.scales.nbytes


def dense_weight(weight: Tensor | Int8Weight, dtype: torch.dtype) -> Tensor:
    """Return the tensor to multiply with: a dequantized Int8Weight, or the weight itself."""
    return weight.dequantize(dtype) if isinstance(weight, Int8Weight) else weight


class Int8LinearFunction(torch.autograd.Function):
    """x W^T + b for an int8 weight; backward gives the gradient of x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Int8Weight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return matmul(x.flatten(0, -2), weight.dequantize(x.dtype).T, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (d_y,) = gradients
        matrix = ctx.weight.dequantize(d_y.dtype)
        return matmul(d_y.flatten(0, -2), matrix).view(*d_y.shape[:-1], -1), None, None


def frozen_linear(x: Tensor, weight: Tensor | Int8Weight, bias: Tensor | None) -> Tensor:
    """x W^T + b for a frozen weight: [..., in] -> [..., out]."""
    if not isinstance(weight, Int8Weight):
        return F.linear(x, weight, bias)
    return apply(Int8LinearFunction, x, weight, bias)


class Int8Linear(nn.Module):
    """A frozen linear layer with an int8 weight."""

    def __init__(self, matrix: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.weight, self.bias = Int8Weight(matrix), bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return frozen_linear(x, self.weight, self.bias)


def int8_model(config: ModelConfig, dropout: DropoutRates, weights: Arrays) -> Model:
    """Build a frozen model with int8 matrices in its blocks; at most one float32 matrix exists at a time."""
    with torch.device("meta"):
        model = Model(config, dropout)
    for name in tensor_shapes(config):
        path, _, leaf = name.rpartition(".")
        owner, values = model.get_submodule(path), float32_tensor(weights, name)
        if isinstance(owner, nn.Linear) and leaf == "weight":
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, Int8Linear(values, owner.bias))
        else:
            setattr(owner, leaf, nn.Parameter(values, requires_grad=False))
    return model.requires_grad_(False)


def count_parameters(model: Model) -> int:
    """Count a model's parameters, the quantised ones included."""
    quantised = sum(m.shape.numel() for m in model.modules() if isinstance(m, Int8Weight))
    return sum(parameter.numel() for parameter in model.parameters()) + quantised


def int8_matrix_bytes(model: Model) -> tuple[int, int]:
    """Return the bytes of the int8 matrices, and the bytes that they would take in float32."""
    weights = [module for module in model.modules() if isinstance(module, Int8Weight)]
    return sum(weight.nbytes for weight in weights), sum(4 * weight.shape.numel() for weight in weights)


def float32_tensor(weights: Arrays, name: str) -> Tensor:
    """Return a float32 copy of a weight."""
    return torch.from_numpy(np.array(weights[name], np.float32))
