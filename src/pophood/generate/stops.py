"""Stop strings in text that arrives in pieces: what can be shown, what has to wait, where to stop.

A stop string matches when its last character arrives, however the text is cut into pieces. The text before
it is shown, the stop string is not. The automaton of Aho and Corasick (1975) follows all strings at once, so
that a character costs the same for one string and for a thousand; its state is the longest end of the text
that may still become a stop string.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache

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
        self._automaton = _automaton(self._strings)
        self._state = 0
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Take the next piece and return the text that can be shown: nothing more once `found` is set."""
        if not self._strings or self.found is not None:
            return "" if self.found is not None else text
        automaton = self._automaton
        for i, character in enumerate(text):
            self._state = automaton.after(self._state, character)
            complete = automaton.complete[self._state]
            if complete:
                whole = self._held + text[: i + 1]
                self._held, self.found = "", whole[-complete:]
                return whole[:-complete]
        whole = self._held + text
        shown = len(whole) - automaton.depth[self._state]
        self._held = whole[shown:]
        return whole[:shown]

    def flush(self) -> str:
        """Return the text still held back; call it when no more text will come."""
        held, self._held = self._held, ""
        return held


class Automaton:
    """The prefixes of some strings as states, 0 the empty one.

    `depth` is the length of each prefix, `complete` that of the longest string that ends there, or 0.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self.depth, self.complete = [0], [0]
        for string in strings:
            self._add(string)
        self._shorter = [0] * len(self.depth)  # the longest proper end of each prefix that is a prefix too
        self._connect()

    def after(self, state: int, character: str) -> int:
        """Return the state after one more character."""
        while character not in self._next[state]:
            if state == 0:
                return 0
            state = self._shorter[state]
        return self._next[state][character]

    def _add(self, string: str) -> None:
        state = 0
        for character in string:
            following = self._next[state].get(character)
            if following is None:
                following = self._next[state][character] = len(self.depth)
                self._next.append({})
                self.depth.append(self.depth[state] + 1)
                self.complete.append(0)
            state = following
        self.complete[state] = len(string)

    def _connect(self) -> None:
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, following in self._next[state].items():
                self._shorter[following] = self.after(self._shorter[state], character)
                waiting.append(following)
            self.complete[state] = self.complete[state] or self.complete[self._shorter[state]]


@lru_cache(maxsize=64)
def _automaton(strings: tuple[str, ...]) -> Automaton:
    """Return the automaton of some strings: samples of one request share it."""
    return Automaton(strings)


def checked(strings: Sequence[str]) -> tuple[str, ...]:
    """Return the stop strings; raise BadInput for one that is empty or not text."""
    values: tuple[object, ...] = (strings,) if isinstance(strings, str) else tuple(strings)
    for value in values:
        if not isinstance(value, str) or not value:
            raise BadInput(f"stop holds {value!r}; wanted texts of one character or more")
    return tuple(str(value) for value in values)
