"""The operations between two matrix products in bfloat16, as autograd functions over native/training.

Each is one pass over its arrays, with float32 inside. Torch's own operations would read and write every array
several times, and save for backward what is computed again here in less time than it takes to load. In
float32, and on other devices than the CPU, torch's operations are used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pophood._native import training as training  # re-exported: no other module of train imports _native
from pophood.train.model import torch_private
from pophood.train.model.buffer_pool import process_function, take_like


def uses_native(x: Tensor) -> bool:
    """Return whether the native kernels compute on `x`: bfloat16 on the CPU."""
    return x.dtype is torch.bfloat16 and x.device.type == "cpu"


def bits(x: Tensor) -> NDArray[np.int16]:
    """Return a bfloat16 tensor's bits; they share its memory if it is contiguous."""
    values: NDArray[np.int16] = x.detach().contiguous().view(torch.int16).numpy()
    return values


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """Return the result of an autograd function; torch declares its `apply` without types."""
    return function.apply(*inputs)  # type: ignore[no-untyped-call, no-any-return]


def num_threads() -> int:
    """Return the number of threads that torch uses; the native kernels use as many."""
    return torch.get_num_threads()


def dropout_seed() -> int:
    """Draw a dropout seed from torch's generator, whose state is checkpointed, so masks survive a resume."""
    return int(torch.randint(0, 2**31 - 1, ()))


def share_torch_threads() -> None:
    """Run the native kernels on torch's OpenMP threads from now on.

    Those threads spin between two products, and a second set would compete with them for the cores. Only
    GNU's OpenMP can be shared; with another runtime the kernels keep their own threads.
    """
    if (region := process_function("GOMP_parallel")) is not None:
        training.use_openmp_threads(ctypes.cast(region, ctypes.c_void_p).value or 0)


# Address, number of elements, and the function that recomputes the value.
_recipes: list[tuple[int, int, Callable[[], Tensor]]] = []


@contextmanager
def recompute_saved(value: Tensor, function: Callable[[], Tensor]) -> Iterator[None]:
    """Within this block, save `function` for backward in place of `value`, which it computes again.

    Does nothing inside gradient checkpointing, which saves no activations.
    """
    checkpointed = torch_private.saved_tensor_hooks_active() and not _recipes
    if not uses_native(value) or not value.requires_grad or checkpointed:
        yield
        return
    _recipes.append((value.data_ptr(), value.numel(), function))
    try:
        if len(_recipes) > 1:
            yield
        else:
            with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
                yield
    finally:
        _recipes.pop()


def _pack(saved: Tensor) -> object:
    for address, size, function in _recipes:
        if saved.data_ptr() == address and saved.numel() == size and saved.is_contiguous():
            return function, saved.shape
    return saved


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    function, shape = packed
    with torch.no_grad():
        value: Tensor = function().view(shape)
    return value


def _output(kernel: Callable[..., object], like: Tensor, *inputs: Any) -> Tensor:
    """Run a kernel that takes its output and the threads last; the output has the shape of `like`."""
    out = take_like(like)
    kernel(*inputs, bits(out), num_threads())
    return out


class GeluFunction(torch.autograd.Function):
    """GELU and its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _output(training.gelu, x, bits(x))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _output(training.gelu_backward, x, bits(x), bits(gradients[0]))


def gelu(x: Tensor) -> Tensor:
    """GELU in the tanh form, as in GPT-2."""
    return apply(GeluFunction, x) if uses_native(x) else F.gelu(x, approximate="tanh")


class SwigluFunction(torch.autograd.Function):
    """SwiGLU and its backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _output(training.swiglu, gate, bits(gate), bits(up))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = take_like(gate), take_like(up)
        training.swiglu_backward(
            bits(gate), bits(up), bits(gradients[0]), bits(d_gate), bits(d_up), num_threads()
        )
        return d_gate, d_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, elementwise."""
    return apply(SwigluFunction, gate, up) if uses_native(gate) else F.silu(gate) * up


class NormFunction(torch.autograd.Function):
    """Layer norm or RMS norm, and its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, gain)
        ctx.eps, ctx.rms = eps, rms
        shift = None if bias is None else bits(bias)
        return _output(training.norm, x, bits(x), bits(gain), shift, eps, rms)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, gain = ctx.saved_tensors
        needs_gain, needs_bias = ctx.needs_input_grad[1:3]
        d_x = take_like(x)
        gains = np.empty(len(gain), np.float32) if needs_gain else None
        biases = np.empty(len(gain), np.float32) if needs_bias else None
        d_y = bits(gradients[0])
        training.norm_backward(
            bits(x), bits(gain), ctx.eps, ctx.rms, d_y, bits(d_x), gains, biases, num_threads()
        )
        d_gain, d_bias = (None if d is None else torch.from_numpy(d).to(gain.dtype) for d in (gains, biases))
        return d_x, d_gain, d_bias, None, None


def norm(x: Tensor, gain: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
    """Layer norm, or RMS norm if `rms`, over the last axis."""
    if uses_native(x):
        return apply(NormFunction, x, gain, bias, eps, rms)
    if rms:
        return F.rms_norm(x, x.shape[-1:], gain, eps)
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps)


class DropoutAddFunction(torch.autograd.Function):
    """Dropout added to a residual; backward computes the mask again from the seed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, y: Tensor, rate: float) -> Tensor:
        ctx.seed, ctx.rate = dropout_seed(), rate
        out = take_like(y)
        before = None if x is None else bits(x)
        training.dropout_add(before, bits(y), bits(out), ctx.seed, rate, num_threads())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        d_y = take_like(gradients[0])
        training.dropout_add(None, bits(gradients[0]), bits(d_y), ctx.seed, ctx.rate, num_threads())
        return gradients[0] if ctx.needs_input_grad[0] else None, d_y, None


def dropout_add(x: Tensor | None, y: Tensor, rate: float) -> Tensor:
    """x + dropout(y), or dropout(y) if x is None."""
    if rate and uses_native(y):
        return apply(DropoutAddFunction, x, y, rate)
    y = F.dropout(y, rate) if rate else y
    return y if x is None else x + y


class RopeFunction(torch.autograd.Function):
    """RoPE; backward rotates by the negative angles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.cosines, ctx.sines = cosines.numpy(), sines.numpy()
        return _output(training.rope, x, bits(x), ctx.cosines, ctx.sines, False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (d_y,) = gradients
        return _output(training.rope, d_y, bits(d_y), ctx.cosines, ctx.sines, True), None, None


def apply_rope(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the pairs (i, i + R/2) of every head by its token's angles: [B, T, H, D], [B, T, 1, R/2]."""
    rotated = 2 * cosines.shape[-1]
    if rotated < x.shape[-1]:
        return torch.cat((apply_rope(x[..., :rotated], cosines, sines), x[..., rotated:]), -1)
    if uses_native(x):
        return apply(RopeFunction, x.contiguous(), cosines, sines)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cosines - b * sines, b * cosines + a * sines), -1).to(x.dtype)
