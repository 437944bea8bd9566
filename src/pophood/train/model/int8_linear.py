"""An 8-bit base for LoRA: frozen matrices as whole numbers with a scale per 32 inputs, widened to multiply.

Of a matrix [out, in] each row is cut into groups of 32; a group w is kept as round(w / s), s = max |w| / 127
(symmetric, as Q8_0 of GGUF, but with a float32 scale): 36 bytes for 32 numbers. A product, forward or
backward, widens the matrix and forgets that again. Embeddings, output matrix, norms and biases stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pophood.config import ModelConfig, tensor_shapes
from pophood.train.model.linear import product
from pophood.train.model.loss import cross_entropy
from pophood.train.model.transformer import Block, Dropout, Model

if TYPE_CHECKING:
    from pophood.train.loop.step import Tensors
    from pophood.train.loop.trainer import Batches

GROUP = 32  # inputs that share a scale
MEASURED = 2048  # positions
Arrays = Mapping[str, NDArray[np.float32]]


class Eight(nn.Module):
    """A frozen matrix [out, in] in 8 bits; no number of it is off by more than half its group's scale."""

    values: Tensor  # [out, groups, 32], int8
    scales: Tensor  # [out, groups, 1], float32

    def __init__(self, matrix: Tensor) -> None:
        """Inputs that are no multiple of 32 are filled up with zeros."""
        super().__init__()
        self.shape = matrix.shape
        filled = F.pad(matrix.detach().float(), (0, -matrix.shape[1] % GROUP))
        groups = filled.view(len(filled), -1, GROUP)
        scales = groups.abs().amax(-1, keepdim=True) / 127
        values = (groups / scales.clamp_min(torch.finfo(torch.float32).tiny)).round_().clamp_(-127, 127)
        self.register_buffer("values", values.to(torch.int8))
        self.register_buffer("scales", scales)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The matrix [out, in], made anew."""
        if dtype is torch.float32:
            groups = self.values.to(dtype).mul_(self.scales)
        else:
            groups = torch.mul(self.values, self.scales, out=torch.empty_like(self.values, dtype=dtype))
        return groups.flatten(1)[:, : self.shape[1]]

    @property
    def nbytes(self) -> int:
        """Bytes of it."""
        return self.values.nbytes + self.scales.nbytes


def widened(weight: Tensor | Eight, dtype: torch.dtype) -> Tensor:
    """A weight as what is multiplied: one that is not quantised as it is."""
    return weight.widened(dtype) if isinstance(weight, Eight) else weight


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Eight, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return product(x.flatten(0, -2), weight.widened(x.dtype).T, bias).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (d_y,) = gradients
        matrix = ctx.weight.widened(d_y.dtype)
        return product(d_y.flatten(0, -2), matrix).view(*d_y.shape[:-1], -1), None, None


def frozen_linear(x: Tensor, weight: Tensor | Eight, bias: Tensor | None) -> Tensor:
    """x W^T + b for a weight that does not learn: [..., in] -> [..., out]."""
    if not isinstance(weight, Eight):
        return F.linear(x, weight, bias)
    y: Tensor = _Frozen.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class EightLinear(nn.Module):
    """A frozen linear layer in 8 bits."""

    def __init__(self, matrix: Tensor, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.weight, self.bias = Eight(matrix), bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return frozen_linear(x, self.weight, self.bias)


def eight_bit_model(config: ModelConfig, dropout: Dropout, weights: Arrays) -> Model:
    """A frozen model whose blocks' matrices are in 8 bits; never is more than one there in 32."""
    with torch.device("meta"):
        model = Model(config, dropout)
    for name in tensor_shapes(config):
        place, _, leaf = name.rpartition(".")
        owner, values = model.get_submodule(place), _tensor(weights, name)
        if isinstance(owner, nn.Linear) and leaf == "weight":
            above, _, child = place.rpartition(".")
            setattr(model.get_submodule(above), child, EightLinear(values, owner.bias))
        else:
            setattr(owner, leaf, nn.Parameter(values, requires_grad=False))
    return model.requires_grad_(False)


def cost(model: Model, weights: Arrays, batches: Batches) -> str:
    """What 8 bits cost, in a line: `losses` on the first batches, of about 2,048 positions."""
    from pophood.train.loop.step import Tensors

    chosen: list[Tensors] = []
    for index in range(batches.batches_per_epoch(0)):
        chosen.append(Tensors.of(batches.batch(0, index)))
        if sum(batch.tokens.numel() for batch in chosen) >= MEASURED:
            break
    eight, full = losses(model, weights, chosen)
    here, there = matrix_bytes(model)
    return (
        f"8-bit base: loss {eight:.4f} before the first step, {full:.4f} without ({eight - full:+.4f}), on"
        f" the same {sum(batch.learned for batch in chosen):,} tokens; its matrices take"
        f" {here / 2**20:,.0f} MiB, not {there / 2**20:,.0f}"
    )


@torch.no_grad()
def losses(model: Model, weights: Arrays, batches: Sequence[Tensors]) -> tuple[float, float]:
    """What 8 bits cost: the mean loss (nats) of a model with them, and with `weights` in their place.

    On the same batches, before anything was learned. One block at a time is there in full, so that this fits
    where the model in full would not.
    """
    was = model.training
    model.eval()
    try:
        streams = [model.embed(batch.tokens, batch.positions) for batch in batches]
        eight = [model.from_block(x, b.positions, b.spans) for x, b in zip(streams, batches, strict=True)]
        for i, block in enumerate(model.blocks):
            try:
                model.blocks[i] = _full_block(model.config, i, weights, streams[0])
                streams = [
                    model.from_block(x, b.positions, b.spans, first=i, last=i + 1)
                    for x, b in zip(streams, batches, strict=True)
                ]
            finally:
                model.blocks[i] = block
        learned = max(sum(batch.learned for batch in batches), 1)
        sums = [
            sum(
                float(cross_entropy(hidden, model.output_weight, batch.targets, 1.0))
                for hidden, batch in zip(found, batches, strict=True)
            )
            for found in (eight, [model.final_norm(x) for x in streams])
        ]
    finally:
        model.train(was)
    return sums[0] / learned, sums[1] / learned


def numbers_of(model: Model) -> int:
    """How many parameters a model has, those in 8 bits among them."""
    eight = (module.shape.numel() for module in model.modules() if isinstance(module, Eight))
    return sum(parameter.numel() for parameter in model.parameters()) + sum(eight)


def matrix_bytes(model: Model) -> tuple[int, int]:
    """Bytes of the matrices that are in 8 bits, and what they would be in 32."""
    found = [module for module in model.modules() if isinstance(module, Eight)]
    return sum(eight.nbytes for eight in found), sum(4 * eight.shape.numel() for eight in found)


def _full_block(config: ModelConfig, number: int, weights: Arrays, like: Tensor) -> Block:
    with torch.device("meta"):
        block = Block(config, Dropout())
    names = [name for name, _ in block.named_parameters()]
    block.load_state_dict({name: _tensor(weights, f"blocks.{number}.{name}") for name in names}, assign=True)
    return block.requires_grad_(False).to(like).eval()


def _tensor(weights: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.array(weights[name], np.float32))
