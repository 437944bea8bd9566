"""String arrays of GGUF: | u64 length | UTF-8 | u64 length | UTF-8 | ... many, quickly, and checked.

Following that chain in Python costs 0.3 us a string, and a vocabulary with its merges has 100,000 to
600,000. So a window of the file is read at once: seven zero bytes mark where a length below 256 may be; if
those places link up (each begins where the one before ends), they are the chain, and one decode and one
split make the strings. Whatever does not link up (empty strings, long ones, NUL characters) goes the slow
way, one string at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

WINDOW = 1 << 16
MARK = "\x01" + 7 * "\x00"  # overwrites each length; it cannot occur elsewhere in a chain that links up


def read_strings(
    data: NDArray[np.uint8], position: int, count: int, one: Callable[[int, int], tuple[str, int]]
) -> tuple[list[str], int]:
    """Read `count` strings at `position`: the strings and the position after them.

    `one(index, position)` reads a single string with every check and raises for a bad one.
    """
    strings: list[str] = []
    slow = 0
    while len(strings) < count:
        found, used = _linked(data[position : position + WINDOW], count - len(strings))
        strings += found
        position += used
        # Odd strings in a row make the slow runs longer, so that a hostile mixture cannot waste the windows.
        slow = 1 if len(found) >= 256 else min(2 * slow + 1, 4096)
        for _ in range(min(slow, count - len(strings))):
            string, position = one(len(strings), position)
            strings.append(string)
    return strings, position


def _linked(window: NDArray[np.uint8], count: int) -> tuple[list[str], int]:
    """Up to `count` strings from the head of a window, and the bytes they take; none if the head is odd."""
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
