"""Reads JSON records from a file: one per line (JSONL), over several lines, or as the items of a list.

`layouts.py` knows what their fields mean.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pophood.train.data.read.lines import MOST_LINE, SEGMENT, read_lines, read_segments

_REST = "; the rest of the file is not read"
_SPACE = re.compile(r"[ \t\n\r]*")
_LIST, _OBJECTS = re.compile(r"\[[ \t\n\r]*"), re.compile(r"\[[ \t\n\r]*\{")


@dataclass(frozen=True, slots=True)
class Record:
    """One record (any JSON value, or a row of a table), or the reason why it cannot be used."""

    line: int  # on which it begins
    value: Any
    why: str | None  # the reason, if the record is bad
    end: int  # bytes of the file up to here
    short: str | None = None  # "has 2 values for 3 columns", for a row with too few


class Repeated(dict[str, Any]):
    """A JSON object with repeated names; it has the last value of each."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.names = frozenset(name for name, times in counts.items() if times > 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    return value if len(value) == len(pairs) else Repeated(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(path: Path) -> Iterator[Record]:
    """Yield the JSON value of each line; blank lines are skipped."""
    for line in read_lines(path):
        if line.why:
            yield Record(line.number, None, line.why, line.end)
        elif line.text.strip():
            value, why = parse(line.text)
            yield Record(line.number, value, why, line.end)


def parse(text: str) -> tuple[Any, str | None]:
    """Return a JSON value, or None and why the text is not JSON. A trailing comma is ignored."""
    try:
        return _DECODER.decode(text.rstrip().removesuffix(",")), None
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg} at character {error.pos + 1:,} of {len(text):,}"
    except RecursionError:
        return None, "is not usable JSON: nested too deeply"
    except ValueError as error:
        return None, f"is not usable JSON: {str(error)[:80]}"


def read_json(path: Path, container: str, key: str = "") -> Iterator[Record]:
    """Yield the records of a file that is not JSON lines; the first damaged one is the last.

    `container` is "values" (one after another), "array" (a list) or "wrapped" (the list `key` of an object).
    """
    text = JsonText(path)
    try:
        if container == "wrapped":
            yield from _wrapped(text, key)
        else:
            yield from _values(text) if container == "values" else _array(text)
    except BadJson as error:
        yield Record(text.line, None, str(error), text.end)


def _values(text: JsonText) -> Iterator[Record]:
    """Yield JSON values that follow one another, each on one line or more, with or without commas between."""
    while text.peek():
        line = text.line
        yield Record(line, text.value(), None, text.end)
        if text.peek() == ",":
            text.expect(",")


def _array(text: JsonText) -> Iterator[Record]:
    """Yield the items of a file that is one JSON list."""
    yield from text.items()
    if text.peek():
        yield Record(text.line, None, f"comes after the end of the list{_REST}", text.end)


def _wrapped(text: JsonText, key: str) -> Iterator[Record]:
    """Yield the items of an object's list `key`; another list of objects is yielded as one bad record."""
    for name in text.fields():
        if name == key:
            yield from text.items()
            continue
        line = text.line
        if text.at_objects():
            why = f"begins another list, {name[:30]!r}, which is not read: put it in a file of its own"
            yield Record(line, None, why, text.end)
        for _ in text.items() if text.peek() == "[" else [text.value()]:
            pass


class BadJson(Exception):
    """Raised where a file stops being JSON; the message is the reason, in one line."""


class JsonText:
    """A JSON file that is parsed value by value, in memory bounded by one value."""

    def __init__(self, path: Path) -> None:
        self.line, self.end = 1, 0  # line of the next character; bytes of the file read so far
        self._segments = read_segments(path)
        self._buffer, self._at, self._more = "", 0, True

    def peek(self) -> str:
        """Skip white space and return the next character without consuming it; "" at the end of the file."""
        while True:
            self._skip_to(_SPACE.match(self._buffer, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._buffer) or not self._more:
                return self._buffer[self._at : self._at + 1]
            self._read()

    def expect(self, wanted: str, without: str = "the file ends too early") -> None:
        """Consume one character. Raises BadJson if it is another one, with `without` at the file's end."""
        character = self.peek()
        if character != wanted:
            raise BadJson(f"has {character!r} where {wanted!r} was expected{_REST}" if character else without)
        self._at += 1

    def value(self) -> Any:
        """Parse the next value. Raises BadJson if it is not JSON or longer than MOST_LINE characters."""
        self.peek()
        while True:
            size, why = len(self._buffer) - self._at, "is not JSON: the file ends too early"
            if not self._more or size >= SEGMENT or self._may_be_whole():
                try:
                    value, end = _DECODER.raw_decode(self._buffer, self._at)
                    if end < len(self._buffer) or not self._more:  # a number may go on
                        self._skip_to(end)
                        return value
                except json.JSONDecodeError as error:
                    why = f"is not JSON: {error.msg}{_REST}"
                except (ValueError, RecursionError) as error:
                    why = f"is not usable JSON: {str(error)[:80]}{_REST}"
            if not self._more or size > MOST_LINE:
                raise BadJson(why)
            self._read()

    def fields(self) -> Iterator[str]:
        """Yield the keys of an object; the caller parses the value of each before asking for the next."""
        self.expect("{")
        while self.peek() != "}":
            name = self.value()
            if not isinstance(name, str):
                raise BadJson(f"has a key that is not text{_REST}")
            self.expect(":")
            self.peek()
            yield name
            if self.peek() != "}":
                self.expect(",", "the object is not closed")
        self.expect("}")

    def items(self) -> Iterator[Record]:
        """Yield the items of a list. Raises BadJson where it is damaged or not closed."""
        self.expect("[")
        while (character := self.peek()) != "]":
            if not character:
                raise BadJson("the list is not closed")
            line = self.line
            yield Record(line, self.value(), None, self.end)
            if self.peek() != "]":
                self.expect(",", "the list is not closed")
        self.expect("]")

    def at_objects(self) -> bool:
        """Return whether the next value is a list that begins with an object."""
        self.peek()
        while self._more and _LIST.fullmatch(self._buffer, self._at):
            self._read()
        return _OBJECTS.match(self._buffer, self._at) is not None

    def _skip_to(self, place: int) -> None:
        self.line += self._buffer.count("\n", self._at, place)
        self._at = place

    def _may_be_whole(self) -> bool:
        """Return whether the buffer may contain a whole value; decoding an unfinished one wastes time."""
        return "}" in self._buffer or self._buffer[self._at : self._at + 1] not in ("{", "[")

    def _read(self) -> None:
        """Read on until the rest of the buffer has doubled, so that long values take linear time."""
        parts, size = [self._buffer[self._at :]], 0
        goal = max(4096, len(parts[0]))
        for piece in self._segments:
            self.end = piece.end
            if piece.why:
                self.line = piece.number
                raise BadJson(piece.why + _REST)
            parts.append(piece.text)
            size += len(piece.text)
            if size >= goal:
                break
        else:
            self._more = False
        self._buffer, self._at = "".join(parts), 0
