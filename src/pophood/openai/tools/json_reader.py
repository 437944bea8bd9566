"""ObjectReader: one JSON object read character by character, for text that may turn out to be something else.

It fails at the first character that no JSON object can have there, so that other text is not held back.
"""

from __future__ import annotations

import json
import re
from typing import Literal

SPACE = " \t\n\r"
MOST_DEPTH = 64
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_WORDS = ("true", "false", "null")
_PARTS_OF_NUMBERS = frozenset("0123456789+-.eE")
_ANY = -1  # after a backslash: any letter of an escape

State = Literal[
    "start", "key or end", "key", "colon", "value or end", "value", "next", "string", "word", "end"
]


class ObjectReader:
    """The object as far as it was read. `done` is true once it is closed.

    `places` maps the keys of the object itself to where their values begin and end in `text`; the end of one
    that is being read is None. A key that comes twice is an error.
    """

    def __init__(self) -> None:
        self.places: dict[str, tuple[int, int | None]] = {}
        self._read: list[str] = []
        self._open: list[str] = []  # the brackets that are open
        self._state: State = "start"
        self._from = 0  # where the string or the word that is being read begins
        self._is_key = False
        self._escape = 0  # hexadecimal digits that are still to come of an escape, or _ANY
        self._key = ""  # of the member that is being read, of the object itself

    @property
    def text(self) -> str:
        return "".join(self._read)

    @property
    def done(self) -> bool:
        return self._state == "end"

    def slice(self, start: int, end: int | None = None) -> str:
        """Return a part of the text."""
        return "".join(self._read[start:end])

    def push(self, char: str) -> bool:
        """Take the next character; return whether the text can still be an object, without it if not."""
        self._read.append(char)
        taken = self._take(char)
        if not taken:
            self._read.pop()
        return taken

    def _take(self, char: str) -> bool:
        if self._state == "string":
            return self._in_string(char)
        if self._state == "word":
            if char not in SPACE and char not in ",]}":
                return self._in_word(char)
            if not self._whole_word(self.slice(self._from, -1)):
                return False
            self._value_ended(len(self._read) - 1)
        if char in SPACE:
            return True
        return self._structure(char)

    def _structure(self, char: str) -> bool:
        """Take a character outside strings and words that is no white space."""
        state = self._state
        if state == "start":
            return char == "{" and self._opened(char)
        if char == '"' and state in ("key or end", "key"):
            return self._began(char, is_key=True)
        if char == ":" and state == "colon":
            self._state = "value"
            return True
        if state in ("value", "value or end") and char not in "]},:":
            return self._value(char)
        if char == "," and state == "next":
            self._state = "key" if self._open[-1] == "{" else "value"
            return True
        closes = state == "next" or (state == "key or end" and char == "}") or state == "value or end"
        if closes and char in "]}" and self._open[-1] == ("{" if char == "}" else "["):
            self._open.pop()
            self._value_ended(len(self._read))
            return True
        return False

    def _value(self, char: str) -> bool:
        if len(self._open) == 1:
            self.places[self._key] = (len(self._read) - 1, None)
        if char in "{[":
            return self._opened(char)
        return self._began(char, is_key=False)

    def _opened(self, char: str) -> bool:
        self._open.append(char)
        self._state = "key or end" if char == "{" else "value or end"
        return len(self._open) <= MOST_DEPTH

    def _began(self, char: str, *, is_key: bool) -> bool:
        self._from, self._is_key = len(self._read) - 1, is_key
        self._state = "string" if char == '"' else "word"
        return char == '"' or self._in_word(char)

    def _value_ended(self, end: int) -> None:
        self._state = "next" if self._open else "end"
        if len(self._open) == 1:
            self.places[self._key] = (self.places[self._key][0], end)

    def _in_string(self, char: str) -> bool:
        if self._escape == _ANY:
            self._escape = 4 if char == "u" else 0
            return char in '"\\/bfnrtu'
        if self._escape:
            self._escape -= 1
            return char in "0123456789abcdefABCDEF"
        if char == "\\":
            self._escape = _ANY
        elif char == '"':
            return self._string_ended()
        return char >= " "

    def _string_ended(self) -> bool:
        if not self._is_key:
            self._value_ended(len(self._read))
            return True
        self._state = "colon"
        if len(self._open) == 1:
            self._key = json.loads(self.slice(self._from))
            return self._key not in self.places
        return True

    def _in_word(self, char: str) -> bool:
        if self._read[self._from] not in "tfn":
            return char in _PARTS_OF_NUMBERS
        word = self.slice(self._from)
        return any(whole.startswith(word) for whole in _WORDS)

    @staticmethod
    def _whole_word(word: str) -> bool:
        return word in _WORDS or _NUMBER.fullmatch(word) is not None
