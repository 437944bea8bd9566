"""Detects answers of small models that go in circles, whose last tokens only repeat a shorter span."""

from __future__ import annotations

from collections import deque

WINDOW = 200  # tokens; an intended list or refrain is shorter


class LoopGuard:
    """Watches the tokens of one answer for repetition.

    >>> guard = LoopGuard(window=6)
    >>> [guard.add(id_) for id_ in (5, 1, 2, 3, 1, 2, 3)]
    [None, None, None, None, None, None, 3]
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._ids: deque[int] = deque(maxlen=window)

    def add(self, id_: int) -> int | None:
        """Add a token. Return the length of a span that fills the window at least twice, or None."""
        self._ids.append(id_)
        if len(self._ids) < self._window:
            return None
        period = _period(list(self._ids))
        return period if 2 * period <= self._window else None


def _period(ids: list[int]) -> int:
    """Return the length of the shortest span whose repetition, cut off at the end, gives `ids`.

    Uses the failure function of Knuth, Morris and Pratt (1977), in linear time.
    """
    border = [0] * len(ids)
    length = 0
    for at in range(1, len(ids)):
        while length and ids[at] != ids[length]:
            length = border[length - 1]
        length += ids[at] == ids[length]
        border[at] = length
    return len(ids) - border[-1]
