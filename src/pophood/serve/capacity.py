"""How much a server can hold: the window of one request, and the blocks of keys and values of all together.

The window that is announced is one that every request really gets: the memory holds at least one full window.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pophood.errors import BadInput, OutOfMemory
from pophood.generate.decoder import BLOCK, KvBlocks
from pophood.system import memory_text

USUAL = 1 << 30  # bytes of keys and values, if a window needs no more and the machine has twice as many
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Capacity:
    """`context` tokens of one request, `blocks` of keys and values of all, which take `memory` bytes."""

    context: int
    blocks: int
    memory: int
    kv: KvBlocks = field(default_factory=KvBlocks)

    @property
    def tokens(self) -> int:
        """The tokens of all requests and of the prefix cache together; one whole window alone may be more."""
        return max(self.blocks * BLOCK, min(self.kv.longest(self.blocks), self.context))


def plan_capacity(
    per_position: int,
    positions: int,
    free: int,
    *,
    memory: int | None = None,
    context: int | None = None,
    kv: KvBlocks | None = None,
) -> Capacity:
    """Divide memory among keys and values of `per_position` bytes each, for a model of so many `positions`.

    `free` bytes are left beside the weights. `memory` and `context` are what the user wants. `kv` counts
    blocks: a window takes fewer where layers have attention windows. Without wishes the
    memory is one gibibyte, or one window if that is more, but at most half of what is free; a window that
    does not fit is shortened. Raises BadInput for wishes that contradict each other.

    >>> plan_capacity(1024, 2048, 1 << 30)
    Capacity(context=2048, blocks=16384, memory=536870912, kv=KvBlocks(layers=1, windowed=0, window=0))
    """
    block = BLOCK * per_position
    window = positions if context is None else context
    kv = kv or KvBlocks()
    needed = kv.computed(window) * block
    if memory is None:
        if context is not None:
            memory = max(needed, min(USUAL, free // 2))
        else:
            memory = min(max(needed, USUAL), max(free // 2, block))
    blocks = memory // block
    if (held := kv.longest(blocks)) < window:
        if context is not None or blocks == 0:
            raise BadInput(
                f"{memory_text(memory)} of keys and values hold {held:,} tokens, the window has "
                f"{window:,}: give --memory {memory_text(needed).replace(' ', '')} or a smaller --context"
            )
        window = held
    if blocks * block > free:
        raise OutOfMemory(
            f"keys and values would take {memory_text(blocks * block)}, and {memory_text(max(free, 0))} is "
            "free beside the weights: close programs, or give less --memory or --context"
        )
    return Capacity(window, blocks, blocks * block, kv)


def parse_size(text: str) -> int:
    """Parse a size in binary units: "512M", "2GiB", "1.5g".

    >>> parse_size("1.5g")
    1610612736
    """
    found = _SIZE.fullmatch(text.strip())
    size = 0 if found is None else int(float(found[1]) * _UNITS[found[2].lower()])
    if size <= 0:
        raise BadInput(f"the size {text!r} is not one: wanted a number with a unit, such as 512M or 2G")
    return size
