"""What lies between two products in bfloat16: one native walk each, float32 inside (native/training.h).

Torch's own operations would write and read every array several times, and keep for the way back what is
computed again here in less time than it takes to fetch. In float32, and off the CPU, torch's are used.
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

from pophood._native import training as training  # re-exported: nobody else in train imports it
from pophood.train.model.buffer_pool import empty_like


def native(x: Tensor) -> bool:
    """Whether `x` is for the native kernels."""
    return x.dtype is torch.bfloat16 and x.device.type == "cpu"


def bits(x: Tensor) -> NDArray[np.int16]:
    """A bfloat16 tensor's bits, of its own memory where it is contiguous."""
    values: NDArray[np.int16] = x.detach().contiguous().view(torch.int16).numpy()
    return values


def threads() -> int:
    """As many as torch uses."""
    return torch.get_num_threads()


def seed() -> int:
    """A seed for one dropout, drawn from torch's generator: it is checkpointed, so masks resume with it."""
    return int(torch.randint(0, 2**31 - 1, ()))


def borrow_threads() -> None:
    """Let the native kernels run on torch's own threads, which are awake between two products and would
    spin beside others. Only where torch uses GNU's OpenMP; elsewhere nothing is borrowed."""
    try:
        region = ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # TypeError: CDLL(None) on Windows
        return
    training.borrow_threads(region or 0)


borrow_threads()


def keep_pages() -> None:
    """Let glibc keep what is freed: a step asks for the same again, and 50,000 fresh pages take 3 % of it.
    The peak is the same, and `give_back` still gives back."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, 1 << 30)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
keep_pages()


def give_back() -> None:
    """Hand pages that are free to the system, where glibc keeps them (85 MB after a model was read)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


_recipes: list[tuple[int, int, Callable[[], Tensor]]] = []  # address, elements, how it is made again


@contextmanager
def recomputed(made: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """While this lasts, whoever keeps `made` for the way back keeps `make` instead, which gives it again.

    Not inside gradient checkpointing, which keeps nothing anyway.
    """
    checkpointed = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None and not _recipes
    if not native(made) or not made.requires_grad or checkpointed:
        yield
        return
    _recipes.append((made.data_ptr(), made.numel(), make))
    try:
        if len(_recipes) > 1:
            yield
        else:
            with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
                yield
    finally:
        _recipes.pop()


def _pack(kept: Tensor) -> object:
    for address, size, make in _recipes:
        if kept.data_ptr() == address and kept.numel() == size and kept.is_contiguous():
            return make, kept.shape
    return kept


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    make, shape = kept
    with torch.no_grad():
        made: Tensor = make().view(shape)
    return made


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        y = empty_like(x)
        training.gelu(bits(x), bits(y), threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        d_x = empty_like(x)
        training.gelu_back(bits(x), bits(gradients[0]), bits(d_x), threads())
        return d_x


def gelu(x: Tensor) -> Tensor:
    """GPT-2's GELU, by tanh."""
    if not native(x):
        return F.gelu(x, approximate="tanh")
    y: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return y


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        y = empty_like(gate)
        training.swiglu(bits(gate), bits(up), bits(y), threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate, d_up = empty_like(gate), empty_like(up)
        training.swiglu_back(bits(gate), bits(up), bits(gradients[0]), bits(d_gate), bits(d_up), threads())
        return d_gate, d_up


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    if not native(gate):
        return F.silu(gate) * up
    y: Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, gain)
        ctx.eps, ctx.rms = eps, rms
        y = empty_like(x)
        training.norm(bits(x), bits(gain), None if bias is None else bits(bias), eps, rms, bits(y), threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, gain = ctx.saved_tensors
        learns, shifts = ctx.needs_input_grad[1:3]
        d_x = empty_like(x)
        gains = np.empty(len(gain), np.float32) if learns else None
        biases = np.empty(len(gain), np.float32) if shifts else None
        d_y = bits(gradients[0])
        training.norm_back(bits(x), bits(gain), ctx.eps, ctx.rms, d_y, bits(d_x), gains, biases, threads())
        d_gain, d_bias = (None if d is None else torch.from_numpy(d).to(gain.dtype) for d in (gains, biases))
        return d_x, d_gain, d_bias, None, None


def norm(x: Tensor, gain: Tensor, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
    """Layer norm, or RMS norm, over the last axis."""
    if native(x):
        y: Tensor = _Norm.apply(x, gain, bias, eps, rms)  # type: ignore[no-untyped-call]
        return y
    if rms:
        return F.rms_norm(x, x.shape[-1:], gain, eps)
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps)


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor | None, y: Tensor, rate: float) -> Tensor:
        ctx.seed, ctx.rate = seed(), rate
        out = empty_like(y)
        before = None if x is None else bits(x)
        training.add_dropped(before, bits(y), bits(out), ctx.seed, rate, threads())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        d_y = empty_like(gradients[0])
        training.add_dropped(None, bits(gradients[0]), bits(d_y), ctx.seed, ctx.rate, threads())
        return gradients[0] if ctx.needs_input_grad[0] else None, d_y, None


def add_dropped(x: Tensor | None, y: Tensor, rate: float) -> Tensor:
    """x + dropout(y); x None: dropout(y)."""
    if rate and native(y):
        out: Tensor = _AddDropped.apply(x, y, rate)  # type: ignore[no-untyped-call]
        return out
    y = F.dropout(y, rate) if rate else y
    return y if x is None else x + y


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        ctx.cosines, ctx.sines = cosines.numpy(), sines.numpy()
        out = empty_like(x)
        training.turn(bits(x), ctx.cosines, ctx.sines, False, bits(out), threads())
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        d_x = empty_like(gradients[0])
        training.turn(bits(gradients[0]), ctx.cosines, ctx.sines, True, bits(d_x), threads())
        return d_x, None, None


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of every head by its token's angles: [B, T, H, D], [B, T, 1, D/2]."""
    if native(x):
        y: Tensor = _Turn.apply(x.contiguous(), cosines, sines)  # type: ignore[no-untyped-call]
        return y
    a, b = x.chunk(2, -1)
    turned = torch.cat((a * cosines - b * sines, b * cosines + a * sines), -1)
    return turned.to(x.dtype)
