"""Arrays of one step in the places of those that nobody holds any more.

glibc (2.36) cannot give a freed block that was aligned, as all of torch's are, to the next request of
the same size, and whatever lives on between two such requests keeps the hole: 7 MB a block of GPT-2 small.
So the large arrays that come and go between two products are handed out again here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALL = 1 << 18  # elements: below, the allocator does well
CLASSES = 2  # bits of a size that count: four sizes from a power of two to the next, however documents differ
SPARE = 1  # free ones of a size that are kept beyond the one that is handed out

_known: dict[int, list[torch.UntypedStorage]] = {}  # by elements


def empty(*shape: int) -> Tensor:
    """An array in bfloat16 with anything in it, to be written before it is read."""
    size = math.prod(shape)
    if size < SMALL or _holders is None:
        return torch.empty(shape, dtype=torch.bfloat16)
    step = 1 << (size.bit_length() - 1 - CLASSES)
    room = -(-size // step) * step
    known = _known.setdefault(room, [])
    free = [storage for storage in known if _holders(storage._cdata) == 1]
    if free:
        storage = free[0]
        for spare in free[1 + SPARE :]:
            known.remove(spare)
    else:
        storage = torch.empty(room, dtype=torch.bfloat16).untyped_storage()
        known.append(storage)
    array: Tensor = torch.empty(0, dtype=torch.bfloat16).set_(storage, 0, shape)  # type: ignore[call-overload]
    return array


def empty_like(x: Tensor) -> Tensor:
    """An array of its shape."""
    return empty(*x.shape)


# How many tensors and storages hold it; a saved tensor counts, and so does what NumPy sees of it.
_holders = getattr(torch._C, "_storage_Use_Count", None)
