"""Training precision: bfloat16 on processors that multiply in it, else float32; and float32 master weights.

A trainable bfloat16 weight keeps the rest of its float32 master beside it. The weight is the master rounded
to 16 bits and the remainder holds the other 16, signed, so the pair is exactly the master and takes no more
memory. The optimizer updates the master (`SplitMasterAdamW`); products use the bfloat16 weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pophood.config import tensor_shapes
from pophood.train.model.torch_private import has_bf16_instructions
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings

SPLIT_ELEMENTS = 1 << 20  # split at a time, so that no whole tensor exists in float32 as well


def dtype_of(settings: TrainSettings) -> torch.dtype:
    """Return the type of matrix products: `settings.precision`, or for "auto" what suits this processor."""
    precision = settings.precision
    if precision == "auto":
        precision = "bf16" if settings.device == "cpu" and has_bf16_instructions() else "f32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def load_f32(model: Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Set every parameter to a float32 copy of the weight of that name, whatever it was before."""
    for name in tensor_shapes(model.config):
        _set_parameter(model, name, torch.from_numpy(np.array(weights[name], np.float32)))


def load_bf16(model: Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Set every parameter to a bfloat16 copy of the weight of that name, and keep `model.master_remainder`.

    Splits in chunks, so no whole tensor is ever held in float32.
    """
    for name in tensor_shapes(model.config):
        values, trainable = weights[name], model.get_parameter(name).requires_grad
        weight = torch.empty(values.shape, dtype=torch.bfloat16)
        remainder = torch.empty(values.shape if trainable else 0, dtype=torch.int16)
        rows = max(1, SPLIT_ELEMENTS // values[0].size)
        for start in range(0, len(values), rows):
            chunk = slice(start, start + rows)
            high, low = split_master(torch.from_numpy(np.array(values[chunk], np.float32)))
            weight[chunk] = high
            if trainable:
                remainder[chunk] = low
        _set_parameter(model, name, weight)
        if trainable:
            model.master_remainder[name] = remainder


def _set_parameter(model: Model, name: str, values: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    trainable = model.get_parameter(name).requires_grad
    setattr(model.get_submodule(path), leaf, nn.Parameter(values, requires_grad=trainable))


def to_bf16(model: Model) -> None:
    """Convert every float32 parameter but LoRA's to bfloat16, and keep `model.master_remainder`."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_a", "lora_b")):
                continue
            weight, remainder = split_master(parameter.detach())
            trainable = parameter.requires_grad
            if trainable:
                model.master_remainder[name] = remainder
            parameter.requires_grad_(False)
            parameter.data = weight
            parameter.requires_grad_(trainable)


def split_master(master: Tensor) -> tuple[Tensor, Tensor]:
    """Split float32 into its nearest bfloat16 and the signed remainder of its bits (int16).

    >>> weight, remainder = split_master(torch.tensor([1.0, 3.14159]))
    >>> torch.equal(join_master(weight, remainder), torch.tensor([1.0, 3.14159]))
    True
    """
    bits = master.contiguous().view(torch.int32)
    high = ((bits + 0x8000) >> 16).to(torch.int16)
    remainder = (bits - (high.to(torch.int32) << 16)).to(torch.int16)
    return high.view(torch.bfloat16), remainder


def join_master(weight: Tensor, remainder: Tensor) -> Tensor:
    """Return the float32 master of a bfloat16 weight and its remainder."""
    bits = weight.contiguous().view(torch.int16).to(torch.int32)
    return bits.bitwise_left_shift_(16).add_(remainder).view(torch.float32)
