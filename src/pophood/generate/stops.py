"""Stop strings in text that arrives in pieces: what may be shown now, what must wait, where to end.

A stop string is found when its last character arrives, wherever the pieces begin and end; the text before it
is released and nothing of it. Each string is followed by the automaton of Knuth, Morris and Pratt (1977), so
a character is looked at once, and the text held back is the longest that could still become a stop string.
"""

from __future__ import annotations

from collections.abc import Sequence

from pophood.errors import BadInput


class StopStrings:
    """Filters one sample's text.

    >>> stops = StopStrings(["END"])
    >>> [stops.push(text) for text in ("the E", "N", "d, the EN", "DING")]
    ['the ', '', 'ENd, the ', '']
    >>> stops.found
    'END'
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = checked(strings)
        self._failures = [_failures(string) for string in self._strings]
        self._matched = [0] * len(self._strings)  # characters of each string at the end of the text so far
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Take the next piece; the text that may be shown. Nothing more comes once `found` is set."""
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
        """The text still held back, when no more will come."""
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
    """The stop strings, or BadInput for one that is empty or no text."""
    given: tuple[object, ...] = (strings,) if isinstance(strings, str) else tuple(strings)
    for string in given:
        if not isinstance(string, str) or not string:
            raise BadInput(f"stop holds {string!r}; wanted texts of one character or more")
    return tuple(str(string) for string in given)


def _failures(string: str) -> list[int]:
    """For every prefix, the length of its longest proper suffix that is a prefix, too."""
    table, n = [0], 0
    for character in string[1:]:
        while n and string[n] != character:
            n = table[n - 1]
        if string[n] == character:
            n += 1
        table.append(n)
    return table
