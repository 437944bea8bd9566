"""What a run multiplies in: bfloat16 where the processor multiplies in it, else float32.

A bfloat16 weight that learns keeps the other half of its float32 master beside it: the weight is the master
rounded to its upper 16 bits, `low` the signed rest, so that the pair is the master to the bit and takes no
more memory than it. Updates are made to the master (`optimizer.py`); what is multiplied is the upper half.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pophood.config import tensor_shapes
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings


def multiplies_in_bf16() -> bool:
    """Whether this processor has instructions for it: elsewhere bfloat16 is emulated, and far slower."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def dtype_of(settings: TrainSettings) -> torch.dtype:
    """The type of what is multiplied: `settings.precision`, or what this processor is best at."""
    wanted = settings.precision
    if wanted == "auto":
        wanted = "bf16" if settings.device == "cpu" and multiplies_in_bf16() else "f32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def load_whole(model: Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Put a copy of every tensor in by its canonical name, as float32, whatever was there."""
    for name in tensor_shapes(model.config):
        _put(model, name, torch.from_numpy(np.array(weights[name], np.float32)))


def load_halves(model: Model, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """The same as bfloat16; what learns keeps its lower half in `model.low`. Never is more than a piece of a
    tensor there in float32 as well."""
    for name in tensor_shapes(model.config):
        values, learns = weights[name], model.get_parameter(name).requires_grad
        high = torch.empty(values.shape, dtype=torch.bfloat16)
        low = torch.empty(values.shape if learns else 0, dtype=torch.int16)
        rows = max(1, PIECE // values[0].size)
        for start in range(0, len(values), rows):
            here = slice(start, start + rows)
            upper, rest = split(torch.from_numpy(np.array(values[here], np.float32)))
            high[here] = upper
            if learns:
                low[here] = rest
        _put(model, name, high)
        if learns:
            model.low[name] = low


def _put(model: Model, name: str, values: Tensor) -> None:
    place, _, leaf = name.rpartition(".")
    learns = model.get_parameter(name).requires_grad
    setattr(model.get_submodule(place), leaf, nn.Parameter(values, requires_grad=learns))


PIECE = 1 << 20  # elements


def halve(model: Model) -> None:
    """Turn every float32 parameter but LoRA's into bfloat16; what learns keeps its lower half in
    `model.low`."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("lora_a", "lora_b")):
                continue
            high, low = split(parameter.detach())
            if parameter.requires_grad:
                model.low[name] = low
            learns = parameter.requires_grad
            parameter.requires_grad_(False)
            parameter.data = high
            parameter.requires_grad_(learns)


def split(master: Tensor) -> tuple[Tensor, Tensor]:
    """float32 -> its nearest bfloat16, and the signed rest of its bits (int16).

    >>> high, low = split(torch.tensor([1.0, 3.14159]))
    >>> torch.equal(joined(high, low), torch.tensor([1.0, 3.14159]))
    True
    """
    bits = master.contiguous().view(torch.int32)
    high = ((bits + 0x8000) >> 16).to(torch.int16)
    low = (bits - (high.to(torch.int32) << 16)).to(torch.int16)
    return high.view(torch.bfloat16), low


def joined(high: Tensor, low: Tensor) -> Tensor:
    """The float32 master of two halves."""
    bits = high.contiguous().view(torch.int16).to(torch.int32)
    return bits.bitwise_left_shift_(16).add_(low).view(torch.float32)
