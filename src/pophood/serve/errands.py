"""Errands of a worker, such as views: one after another, between the steps of its answers. (small: one class)

An errand shares the engine with the answers in one thread: before each of its passes it calls back, and the
worker makes a step then. So no lock is needed, and an errand that nobody waits for ends at its next pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from pophood.errors import Cancelled
from pophood.serve.messages import ENDING, Errand, Event, Failed, ViewShown, failure

Between = Callable[[], int]  # lets the answers go on; returns how many rows the next pass may have
View = Callable[[Errand, Between], Mapping[str, Any]]


class Errands:
    """The errands that wait, and the one that is being done with `view`."""

    def __init__(self, view: View | None) -> None:
        self._view = view
        self._waiting: deque[Errand] = deque()
        self._doing: int | None = None  # its number; None too once nobody waits for it any more

    @property
    def idle(self) -> bool:
        """True if none waits, and none is being done."""
        return not self._waiting and self._doing is None

    def add(self, errand: Errand) -> None:
        """Let an errand wait for its turn."""
        self._waiting.append(errand)

    def leave(self, number: int) -> None:
        """Forget an errand, if this is the number of one: its client has gone."""
        self._waiting = deque(errand for errand in self._waiting if errand.id != number)
        if self._doing == number:
            self._doing = None

    def stop(self) -> list[int]:
        """Forget all of them, and return their numbers."""
        numbers = [errand.id for errand in self._waiting]
        if self._doing is not None:
            numbers.append(self._doing)
        for number in numbers:
            self.leave(number)
        return numbers

    def check(self) -> None:
        """Raise Cancelled if nobody waits for the errand that is being done."""
        if self._doing is None:
            raise Cancelled("nobody waits for it any more")

    def next(self, between: Between) -> Event | None:
        """Do the errand that waits longest; return what is told of it, None if nobody waits for it."""
        if not self._waiting:
            return None
        errand = self._waiting.popleft()
        if self._view is None:
            return Failed(errand.id, "stopping", ENDING)
        self._doing = errand.id
        try:
            told: Event = ViewShown(errand.id, self._view(errand, between))
        except Exception as error:
            told = failure(errand.id, error)
        return self._done(told)

    def _done(self, told: Event) -> Event | None:
        waited, self._doing = self._doing is not None, None
        return told if waited else None
