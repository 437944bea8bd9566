"""Budget: what one rendering of a chat template may still take, and the sizes that nothing in it may pass."""

from __future__ import annotations

import time
from typing import Any

MOST_SECONDS = 2.0
MOST_OUTPUT = 1 << 20  # characters of one text, the rendered one too
MOST_WORK = 16 << 20  # characters and list entries made in one rendering, all together
MOST_ENTRIES = 100_000  # of one list with all that is nested in it
MOST_BITS = 4_096  # of a whole number
MOST_WIDTH = 10_000  # of padding and indentation
MOST_TAGS = 5_000  # of a template before it is parsed
MOST_NODES = 10_000  # of a parsed template; the longest published ones have about 2,000


class LimitReached(Exception):
    """The template took too long or made too much."""


class Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MOST_SECONDS  # of the processor: other programs may have it
        self._work = MOST_WORK

    def tick(self) -> None:
        if time.thread_time() > self._deadline:
            raise LimitReached(f"it takes more than {MOST_SECONDS:g} s")

    def charge(self, size: int) -> None:
        """Pay for a text or a list of this size, before it is made."""
        self.tick()
        self._work -= size
        if size > MOST_OUTPUT or self._work < 0:
            raise LimitReached(f"it makes more than {MOST_OUTPUT >> 20} MiB of text")

    def checked(self, value: Any) -> Any:
        """A value that was just made: paid for, and not too large to go on with."""
        if isinstance(value, str):
            self.charge(len(value))
        elif isinstance(value, int):
            if value.bit_length() > MOST_BITS:
                raise LimitReached(f"it makes a number of more than {MOST_BITS} bits")
        elif isinstance(value, (list, tuple, dict)):
            self.charge(entries(value))
        return value


def entries(value: object) -> int:
    """Entries of a list or dict with everything nested in it, a list in it twice counted twice.

    Sixteen characters of a text count as one more entry, so that comparing two lists takes no longer either.
    """
    count, pending = 0, [value]
    while pending:
        item = pending.pop()
        count += 1
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
        elif isinstance(item, str):
            count += len(item) // 16
        if count + len(pending) > MOST_ENTRIES:
            raise LimitReached(f"it makes a list of more than {MOST_ENTRIES:,} entries")
    return count
