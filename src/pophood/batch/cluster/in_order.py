"""InOrder: answers that come in any order leave in that of their lines, each once. (small: one class)

A machine that dies takes answers with it that were computed; Ray computes them anew, and may hand out some of
them again. What is written depends on none of that.
"""

from __future__ import annotations

from collections.abc import Iterator

from pophood.batch.shapes import Record


class InOrder:
    """The lines that wait for their answers, and the answers that wait for those of earlier lines.

    >>> order = InOrder()
    >>> for number in (1, 3, 4):
    ...     order.expect(number)
    >>> order.add({"line": 3}), order.add({"line": 3}), list(order.ready())
    (True, False, [])
    >>> order.add({"line": 1}), list(order.ready()), order.next
    (True, [{'line': 1}, {'line': 3}], 4)
    """

    def __init__(self) -> None:
        self._numbers: list[int] = []  # of all lines, ascending
        self._left = 0  # how many have left
        self._waiting: dict[int, Record] = {}

    def expect(self, number: int) -> None:
        """Note a line; numbers ascend."""
        self._numbers.append(number)

    def add(self, record: Record) -> bool:
        """Take an answer; return False for one that came before."""
        number = record["line"]
        if self.next is None or number < self.next or number in self._waiting:
            return False
        self._waiting[number] = record
        return True

    def ready(self) -> Iterator[Record]:
        """Yield the answers that no earlier line keeps back."""
        while (number := self.next) is not None and number in self._waiting:
            self._left += 1
            yield self._waiting.pop(number)

    @property
    def next(self) -> int | None:
        """The number of the line whose answer is to leave next; None after the last."""
        return self._numbers[self._left] if self._left < len(self._numbers) else None
