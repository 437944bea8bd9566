"""Fast, checked reading of GGUF's string arrays: | u64 length | UTF-8 | u64 length | UTF-8 | ...

Following that chain in Python costs 0.3 us per string, and a vocabulary with its merges has 100,000 to
600,000. So a window of the file is scanned at once: seven zero bytes mark a possible length below 256. If
those places link up (each string ends where the next length begins), they are the chain, and one decode and
one split produce all strings of the window. Strings that do not link up (empty or long ones, NUL characters)
are read one at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WINDOW = 1 << 16
MARK = "\x01" + 7 * "\x00"  # replaces each length; it cannot occur elsewhere in a chain that links up


def read_strings(
    data: NDArray[np.uint8], position: int, count: int, one: Callable[[int, int], tuple[str, int]]
) -> tuple[list[str], int]:
    """Read `count` strings at `position`; return them and the position after them.

    `one(index, position)` reads a single string with every check, and raises for a bad one.
    """
    strings: list[str] = []
    slow = 0
    while len(strings) < count:
        linked, used = _linked(data[position : position + WINDOW], count - len(strings))
        strings += linked
        position += used
        # Windows with few linked strings lengthen the slow runs, so that a hostile mixture cannot waste
        # windows.
        slow = 1 if len(linked) >= 256 else min(2 * slow + 1, 4096)
        for _ in range(min(slow, count - len(strings))):
            string, position = one(len(strings), position)
            strings.append(string)
    return strings, position


def _linked(window: NDArray[np.uint8], count: int) -> tuple[list[str], int]:
    """Return up to `count` linked strings from the start of a window, and the bytes they take."""
    zero = window == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]  # seven[i]: bytes i to i + 6 are zero
    starts = np.flatnonzero(seven[1:])
    if not starts.size or starts[0] != 0:
        return [], 0
    ends = starts + 8 + window[starts]
    links = ends[:-1] == starts[1:]
    whole = min(count, links.size if links.all() else int(links.argmin()))
    text = window[: ends[whole - 1] if whole else 0].copy()
    text[starts[:whole]] = ord(MARK[0])
    while whole:
        try:
            strings = str(text[: ends[whole - 1]].data, "utf-8").split(MARK)
        except UnicodeDecodeError as error:
            whole = int(np.searchsorted(starts[:whole], error.start)) - 1  # the strings before the bad one
        else:
            return strings[1:], int(ends[whole - 1])
    return [], 0
