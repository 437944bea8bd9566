"""Budget: the time and work left for one rendering of a chat template, and the limits on sizes in it."""

from __future__ import annotations

import time
from typing import Any

MOST_SECONDS = 2.0
MOST_OUTPUT = 1 << 20  # characters of one text, including the rendered one
MOST_WORK = 16 << 20  # characters and list entries made in one rendering, in total
MOST_ENTRIES = 100_000  # of one list, including nested ones
MOST_BITS = 4_096  # of a whole number
MOST_WIDTH = 10_000  # of padding and indentation
MOST_TAGS = 5_000  # of a template before it is parsed
MOST_NODES = 10_000  # of a parsed template; the longest published ones have about 2,000


class LimitReached(Exception):
    """Raised when a template takes too long or makes too much."""


class Budget:
    """The time and work that one rendering has left."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MOST_SECONDS  # processor time, so a busy machine does not count
        self._work = MOST_WORK

    def tick(self) -> None:
        """Raise LimitReached after the deadline."""
        if time.thread_time() > self._deadline:
            raise LimitReached(f"it takes more than {MOST_SECONDS:g} s")

    def charge(self, size: int) -> None:
        """Charge for a text or a list of this size, before it is made."""
        self.tick()
        self._work -= size
        if size > MOST_OUTPUT or self._work < 0:
            raise LimitReached(f"it makes more than {MOST_OUTPUT >> 20} MiB of text")

    def checked(self, value: Any) -> Any:
        """Charge for a value that was just made, and return it."""
        if isinstance(value, str):
            self.charge(len(value))
        elif isinstance(value, int):
            if value.bit_length() > MOST_BITS:
                raise LimitReached(f"it makes a number of more than {MOST_BITS} bits")
        elif isinstance(value, (list, tuple, dict)):
            self.charge(entries(value))
        return value


def entries(value: object) -> int:
    """Count the entries of a list or dict and of everything nested in it (twice if it occurs twice).

    Sixteen characters of a text count as one more entry, which also bounds the time to compare two lists.
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
