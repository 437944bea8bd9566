"""A buffer pool that reuses large temporary tensors between steps, and the settings of glibc's heap.

glibc (2.36) cannot give a freed aligned block to the next request of the same size, and all of torch's blocks
are aligned. Anything that outlives two such requests keeps the hole open: 7 MB a block of GPT-2 small. So the
large temporary arrays of a step are reused here.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from pophood.train.model import torch_private

SMALL = 1 << 18  # elements; the allocator handles smaller arrays well
SIZE_BITS = 2  # significant bits of a size, which give four size classes per power of two
SPARE = 1  # free buffers kept per size class, besides the one that is handed out
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
KEEP_BELOW = 1 << 30  # bytes

_pool: dict[int, list[torch.UntypedStorage]] = {}  # size class in elements -> its buffers


def take(*shape: int) -> Tensor:
    """Return an uninitialised bfloat16 array; write it before you read it."""
    size = math.prod(shape)
    use_count = torch_private.storage_use_count
    if size < SMALL or use_count is None:
        return torch.empty(shape, dtype=torch.bfloat16)
    step = 1 << (size.bit_length() - 1 - SIZE_BITS)
    capacity = -(-size // step) * step
    buffers = _pool.setdefault(capacity, [])
    free = [storage for storage in buffers if use_count(storage._cdata) == 1]
    if free:
        storage = free[0]
        for spare in free[1 + SPARE :]:
            buffers.remove(spare)
    else:
        storage = torch.empty(capacity, dtype=torch.bfloat16).untyped_storage()
        buffers.append(storage)
    array: Tensor = torch.empty(0, dtype=torch.bfloat16).set_(storage, 0, shape)  # type: ignore[call-overload]
    return array


def take_like(x: Tensor) -> Tensor:
    """Return an uninitialised bfloat16 array with the shape of `x`."""
    return take(*x.shape)


def keep_freed_pages() -> None:
    """Tell glibc to keep freed memory, because a step asks for the same sizes again.

    50,000 fresh pages take 3 % of a step. Peak memory stays the same, and `release_free_memory` still returns
    free memory. Does nothing without glibc.
    """
    _call_glibc("mallopt", M_MMAP_THRESHOLD, KEEP_BELOW)
    _call_glibc("mallopt", M_TRIM_THRESHOLD, KEEP_BELOW)


def release_free_memory() -> None:
    """Return free heap memory to the system (85 MB after a model was read). Does nothing without glibc."""
    _call_glibc("malloc_trim", 0)


def process_function(name: str) -> Any:
    """Return a C function of the libraries that this process has loaded, or None."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # TypeError: CDLL(None) on Windows
        return None


def _call_glibc(name: str, *arguments: int) -> None:
    if (function := process_function(name)) is not None:
        function(*arguments)
