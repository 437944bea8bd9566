"""Stop strings in text that arrives in pieces: what can be shown, what has to wait, where to stop.

A stop string matches when its last character arrives, however the text is cut into pieces. The text before it
is shown, the stop string is not. The automaton of Knuth, Morris and Pratt (1977) follows each string, so that
a character is examined once; it also tells the longest end of the text that may still become a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence

from pophood.errors import BadInput


class StopStrings:
    """Filters the text of one sample; `found` is the stop string that ended it.

    >>> stops = StopStrings(["END"])
    >>> [stops.push(text) for text in ("the E", "N", "d, the EN", "DING")]
    ['the ', '', 'ENd, the ', '']
    >>> stops.found
    'END'
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = checked(strings)
        self._failures = [_failures(string) for string in self._strings]
        self._matched = [0] * len(self._strings)  # per string: how many of its characters end the text so far
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Take the next piece and return the text that can be shown: nothing more once `found` is set."""
        if not self._strings or self.found is not None:
            return "" if self.found is not None else text
        for i, character in enumerate(text):
            complete = self._advance(character)
            if complete:
                self.found = max(complete, key=len)
                whole = self._held + text[: i + 1]
                self._held = ""
                return whole[: -len(self.found)]
        whole = self._held + text
        waiting = max(self._matched)
        self._held = whole[len(whole) - waiting :]
        return whole[: len(whole) - waiting]

    def flush(self) -> str:
        """Return the text still held back; call it when no more text will come."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> list[str]:
        complete = []
        for i, string in enumerate(self._strings):
            n = self._matched[i]
            while n and (n == len(string) or string[n] != character):
                n = self._failures[i][n - 1]
            if string[n] == character:
                n += 1
            self._matched[i] = n
            if n == len(string):
                complete.append(string)
        return complete


def checked(strings: Sequence[str]) -> tuple[str, ...]:
    """Return the stop strings; raise BadInput for one that is empty or not text."""
    values: tuple[object, ...] = (strings,) if isinstance(strings, str) else tuple(strings)
    for value in values:
        if not isinstance(value, str) or not value:
            raise BadInput(f"stop holds {value!r}; wanted texts of one character or more")
    return tuple(str(value) for value in values)


def _failures(string: str) -> list[int]:
    """Return for every prefix the length of its longest proper suffix that is also a prefix."""
    table, n = [0], 0
    for character in string[1:]:
        while n and string[n] != character:
            n = table[n - 1]
        if string[n] == character:
            n += 1
        table.append(n)
    return table
