"""JSON records out of files: one a line (JSONL), values over several lines, or the items of a list.

The meaning of fields is not known here.
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
class Raw:
    """One record as the file has it, or why it cannot be read; `line`: where it begins."""

    line: int
    value: Any
    why: str | None
    end: int  # bytes of the file up to here
    short: str | None = None  # of a row of a table with fewer values than there are columns: the counts


class Repeated(dict[str, Any]):
    """An object in which some names stand more than once; the last of their values are kept."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.names = frozenset(name for name, times in counts.items() if times > 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(pairs)


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(path: Path) -> Iterator[Raw]:
    """One JSON value per line; blank lines are nothing."""
    for line in read_lines(path):
        if line.why:
            yield Raw(line.number, None, line.why, line.end)
        elif line.text.strip():
            value, why = parse(line.text)
            yield Raw(line.number, value, why, line.end)


def parse(text: str) -> tuple[Any, str | None]:
    """A JSON value, or why the text is none; a comma after it, as between the items of a list, is allowed."""
    try:
        return _DECODER.decode(text.rstrip().removesuffix(",")), None
    except json.JSONDecodeError as error:
        return None, f"is not JSON: {error.msg} at character {error.pos + 1:,} of {len(text):,}"
    except RecursionError:
        return None, "is not usable JSON: nested too deeply"
    except ValueError as error:
        return None, f"is not usable JSON: {str(error)[:80]}"


def read_values(path: Path) -> Iterator[Raw]:
    """JSON values one after another, each over as many lines as it takes, with or without commas between."""
    text = JsonText(path)
    try:
        while text.peek():
            line = text.line
            yield Raw(line, text.value(), None, text.end)
            if text.peek() == ",":
                text.expect(",")
    except BadJson as error:
        yield Raw(text.line, None, str(error), text.end)


def read_array(path: Path) -> Iterator[Raw]:
    """The items of a file that is one JSON list, in memory bounded by one item.

    After an item that is not JSON nothing tells where the next begins: it is the last, and says so.
    """
    text = JsonText(path)
    try:
        yield from text.items()
        if text.peek():
            yield Raw(text.line, None, f"comes after the end of the list{_REST}", text.end)
    except BadJson as error:
        yield Raw(text.line, None, str(error), text.end)


def read_wrapped(path: Path, key: str) -> Iterator[Raw]:
    """The items of the list that an object has under `key`; further lists of objects are bad, by name."""
    text = JsonText(path)
    try:
        for name in text.fields():
            if name == key:
                yield from text.items()
                continue
            line = text.line
            if text.at_objects():
                why = f"begins another list, {name[:30]!r}, which is not read: put it into a file of its own"
                yield Raw(line, None, why, text.end)
            for _ in text.items() if text.peek() == "[" else [text.value()]:
                pass
    except BadJson as error:
        yield Raw(text.line, None, str(error), text.end)


class BadJson(Exception):
    """Why a text is no JSON from some place on, in one line."""


class JsonText:
    """JSON read piece by piece out of a file, in memory bounded by one value."""

    def __init__(self, path: Path) -> None:
        self.line, self.end = 1, 0  # where the next character is; bytes of the file that were read
        self._segments = read_segments(path)
        self._buffer, self._at, self._more = "", 0, True

    def peek(self) -> str:
        """The next character after white space, which is skipped; "" at the end of the file."""
        while True:
            self._skip_to(_SPACE.match(self._buffer, self._at).end())  # type: ignore[union-attr]
            if self._at < len(self._buffer) or not self._more:
                return self._buffer[self._at : self._at + 1]
            self._read()

    def expect(self, wanted: str, without: str = "the file ends too early") -> None:
        """Skip one character; BadJson if it is another, or `without` at the end of the file."""
        found = self.peek()
        if found != wanted:
            raise BadJson(f"has {found!r} where {wanted!r} was expected{_REST}" if found else without)
        self._at += 1

    def value(self) -> Any:
        """The next value; BadJson if it is none, or has more than MOST_LINE characters."""
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
        """The keys of an object, each while its value is what comes next and has to be read by the caller."""
        self.expect("{")
        while self.peek() != "}":
            name = self.value()
            if not isinstance(name, str):
                raise BadJson(f"has a key that is no text{_REST}")
            self.expect(":")
            self.peek()
            yield name
            if self.peek() != "}":
                self.expect(",", "the object is not closed")
        self.expect("}")

    def items(self) -> Iterator[Raw]:
        """The items of a list; BadJson where it is damaged or not closed."""
        self.expect("[")
        while (found := self.peek()) != "]":
            if not found:
                raise BadJson("the list is not closed")
            line = self.line
            yield Raw(line, self.value(), None, self.end)
            if self.peek() != "]":
                self.expect(",", "the list is not closed")
        self.expect("]")

    def at_objects(self) -> bool:
        """Whether a list comes next whose first item is an object."""
        self.peek()
        while self._more and _LIST.fullmatch(self._buffer, self._at):
            self._read()
        return _OBJECTS.match(self._buffer, self._at) is not None

    def _skip_to(self, place: int) -> None:
        self.line += self._buffer.count("\n", self._at, place)
        self._at = place

    def _may_be_whole(self) -> bool:
        """Whether the buffer may hold a whole value: decoding an unfinished one is only wasted time."""
        return "}" in self._buffer or self._buffer[self._at : self._at + 1] not in ("{", "[")

    def _read(self) -> None:
        """Double what is to come in the buffer, so that long values cost linear time."""
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
