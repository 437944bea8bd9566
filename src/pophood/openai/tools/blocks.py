"""Blocks: the text from a mark to the end of the calls that it opens, read character by character.

Each format has one. A block fails at the first character that its format does not have there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from enum import Enum, auto
from typing import Literal

from pophood.openai.tools.formats import ARGS, CALL_ID, CallFormat, Style
from pophood.openai.tools.json_reader import SPACE, ObjectReader

_KEYS = frozenset({"name", "arguments", "parameters", "type", "id"})
_ARGUMENTS = ("arguments", "parameters")
MOST_NAME = 64
NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class BlockStep(Enum):
    """The meaning of a character to a block: it goes on, fails, or is done with or before the character."""

    MORE = auto()
    FAILED = auto()
    DONE = auto()
    DONE_BEFORE = auto()


class CallReader:
    """One call as it arrives: an object with a name and arguments, or with `named` the arguments alone."""

    def __init__(self, names: Collection[str], named: str | None = None) -> None:
        self._object = ObjectReader()
        self._names, self._named = names, named
        self.name = named

    def push(self, char: str) -> bool:
        """Take the next character; return whether the text can still be a call."""
        if not self._object.push(char):
            return False
        if self._named is not None:
            return not self.done or _json(self._object.text) is not None
        if not self._object.places.keys() <= _KEYS:
            return False
        if self.name is None and not self._find_name():
            return False
        return not self.done or self._is_call()

    @property
    def done(self) -> bool:
        return self._object.done

    @property
    def arguments(self) -> str | None:
        """The text of the arguments so far; None before they begin."""
        if self._named is not None:
            return self._object.text or None
        for key in _ARGUMENTS:
            if key in self._object.places:
                return self._object.slice(*self._object.places[key])
        return None

    def _find_name(self) -> bool:
        """Note the name once it is read; return whether it can be one of the functions."""
        start, end = self._object.places.get("name", (0, None))
        if end is None:
            return True
        name = _json(self._object.slice(start, end))
        if not isinstance(name, str) or name not in self._names:
            return False
        self.name = name
        return True

    def _is_call(self) -> bool:
        data = _json(self._object.text)
        if not isinstance(data, dict) or data.get("type", "function") != "function":
            return False
        given = [data[key] for key in _ARGUMENTS if key in data]
        return self.name is not None and len(given) == 1 and isinstance(given[0], dict)


def _json(text: str) -> object:
    """Return the data of a text; None if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # numbers of 5,000 digits too
        return None


class Block:
    """The base of the four: `calls` are those that have begun."""

    def __init__(self, form: CallFormat, names: Collection[str]) -> None:
        self.form, self.names = form, names
        self.calls: list[CallReader] = []

    def push(self, char: str) -> BlockStep:
        """Take the next character."""
        raise NotImplementedError

    def close(self) -> bool:
        """Return whether the block is complete at the end of the answer."""
        return False

    def _object(self, char: str, named: str | None = None) -> BlockStep:
        """Begin a call with its first character, or go on with it."""
        if not self.calls or self.calls[-1].done:
            self.calls.append(CallReader(self.names, named))
        return BlockStep.MORE if self.calls[-1].push(char) else BlockStep.FAILED


class TaggedBlock(Block):
    """One call, and the mark that closes it; at the end of an answer the mark may be missing."""

    def __init__(self, form: CallFormat, names: Collection[str]) -> None:
        super().__init__(form, names)
        self._tail = ""

    def push(self, char: str) -> BlockStep:
        if not self.calls or not self.calls[0].done:
            return BlockStep.MORE if not self.calls and char in SPACE else self._object(char)
        self._tail = (self._tail + char).lstrip(SPACE)
        if self._tail == self.form.closes:
            return BlockStep.DONE
        return BlockStep.MORE if self.form.closes.startswith(self._tail) else BlockStep.FAILED

    def close(self) -> bool:
        return bool(self.calls) and self.calls[0].done and not self._tail


class BareBlock(Block):
    """One call without a closing mark: nothing but another call may follow, perhaps after a semicolon."""

    def push(self, char: str) -> BlockStep:
        if self.calls and self.calls[0].done:
            if char in SPACE:
                return BlockStep.MORE
            return BlockStep.DONE_BEFORE if char in ";{" else BlockStep.FAILED
        return BlockStep.MORE if not self.calls and char in SPACE else self._object(char)

    def close(self) -> bool:
        return bool(self.calls) and self.calls[0].done


class ListBlock(Block):
    """A JSON array of calls."""

    def __init__(self, form: CallFormat, names: Collection[str]) -> None:
        super().__init__(form, names)
        self._next: Literal["[", "{", ",]"] = "["

    def push(self, char: str) -> BlockStep:
        if self.calls and not self.calls[-1].done:
            return self._object(char)
        if char in SPACE:
            return BlockStep.MORE
        if char not in self._next:
            return BlockStep.FAILED
        if char == "{":
            self._next = ",]"
            return self._object(char)
        self._next = "{"
        return BlockStep.DONE if char == "]" else BlockStep.MORE


class NamedBlock(Block):
    """The name of a function, perhaps an id, a mark, and the arguments."""

    def __init__(self, form: CallFormat, names: Collection[str]) -> None:
        super().__init__(form, names)
        self._head = ""
        self._name: str | None = None

    def push(self, char: str) -> BlockStep:
        if self._name is None:
            return self._in_head(char)
        if not self.calls and char in SPACE:
            return BlockStep.MORE
        step = self._object(char, self._name)
        return BlockStep.DONE if step is BlockStep.MORE and self.calls[0].done else step

    def _in_head(self, char: str) -> BlockStep:
        self._head += char
        name, bracket, rest = self._head.partition("[")
        if len(name) > MOST_NAME or not NAME_LETTERS.issuperset(name.strip(SPACE)):
            return BlockStep.FAILED
        mark = bracket + rest
        if mark.startswith(CALL_ID):
            id_, bracket, rest = mark.removeprefix(CALL_ID).partition("[")
            if len(id_) > MOST_NAME or not NAME_LETTERS.issuperset(id_):
                return BlockStep.FAILED
            mark = bracket + rest
        elif CALL_ID.startswith(mark):
            return BlockStep.MORE
        if mark == ARGS:
            self._name = name.strip(SPACE)
            return BlockStep.MORE if self._name in self.names else BlockStep.FAILED
        return BlockStep.MORE if ARGS.startswith(mark) else BlockStep.FAILED


BLOCKS: Mapping[Style, Callable[[CallFormat, Collection[str]], Block]] = {
    "tagged": TaggedBlock,
    "bare": BareBlock,
    "list": ListBlock,
    "named": NamedBlock,
}
