"""SourcedText: a str that records which message each of its characters came from, through a chat template.

To a template, `SourcedText` behaves like any other str: it compares, measures, splits and prints the same. It
also carries the source of each character, and every operation that a template may use carries the sources
along. So the rendered text tells a message's characters from the template's own, without any mark that the
template could see.

Where an operation cannot follow single characters (JSON, `repr`, a change of case that changes the length),
its whole result counts as coming from every source of its inputs: it is `tainted`. Messages are not known
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, SupportsIndex

Kind = Literal["text", "role", "answer"]
KeyPath = tuple[str | int, ...]  # keys and indices that lead to a text in a message


@dataclass(frozen=True, slots=True)
class Source:
    """One text of a conversation: the number of its message (from 0) and its path within the message.

    `message` is None for tools, documents and other variables. `kind` says how far its characters are
    trusted: "role" may complete a special token, "answer" is the assistant's own text.
    """

    message: int | None
    path: KeyPath
    kind: Kind = "text"


Sources = tuple[Source, ...]  # () is the template itself; several for a text made from several sources
Runs = tuple[tuple[int, Sources], ...]  # (length, sources) of consecutive characters with the same sources


class SourcedText(str):
    """A str that carries the sources of its characters: `SourcedText("Hi", ((2, (source,)),)).runs`."""

    __slots__ = ("runs",)
    runs: Runs

    def __new__(cls, text: str, runs: Runs) -> SourcedText:
        """`runs` must cover the whole text."""
        self = str.__new__(cls, str.__str__(text))
        self.runs = runs
        return self

    def __str__(self) -> str:
        return self

    def plain(self) -> str:
        """Return the characters as an ordinary str."""
        return str.__str__(self)

    def part(self, start: int, end: int) -> SourcedText:
        """Return the characters from `start` up to `end`, with their sources; both lie within the text."""
        runs: list[tuple[int, Sources]] = []
        at = 0
        for length, sources in self.runs:
            low, high = max(at, start), min(at + length, end)
            if low < high:
                runs.append((high - low, sources))
            at += length
            if at >= end:
                break
        return SourcedText(str.__getitem__(self, slice(start, end)), tuple(runs))

    # Indexing and joining.

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            start = range(len(self))[key]
            return self.part(start, start + 1)
        start, stop, step = key.indices(len(self))
        if step == 1:
            return self.part(start, max(start, stop))
        return join_texts(self.part(at, at + 1) for at in range(start, stop, step))

    def __iter__(self) -> Iterator[str]:
        at = 0
        for length, sources in self.runs:
            for character in str.__getitem__(self, slice(at, at + length)):
                yield SourcedText(character, ((1, sources),))
            at += length

    def __add__(self, other: object) -> str:
        return join_texts((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> str:
        return join_texts((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> str:
        return SourcedText(str.__mul__(self, times), self.runs * max(times.__index__(), 0))

    __rmul__ = __mul__

    def join(self, texts: Iterable[str]) -> str:
        return join_texts(_between(texts, self))

    # Splitting and stripping.

    def strip(self, characters: str | None = None) -> str:
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters: str | None = None) -> str:
        return self.part(len(self) - len(str.lstrip(self, characters)), len(self))

    def rstrip(self, characters: str | None = None) -> str:
        return self.part(0, len(str.rstrip(self, characters)))

    def removeprefix(self, prefix: str) -> str:
        return self.part(len(self) - len(str.removeprefix(self, prefix)), len(self))

    def removesuffix(self, suffix: str) -> str:
        return self.part(0, len(str.removesuffix(self, suffix)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.split(self, sep, maxsplit), 0 if sep is None else len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._located(str.rsplit(self, sep, maxsplit), 0 if sep is None else len(sep))

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines = self._located(str.splitlines(self, keepends=True), 0)
        bare = str.splitlines(self)
        return lines if keepends else [line[: len(end)] for line, end in zip(lines, bare, strict=True)]

    def partition(self, sep: str) -> tuple[str, str, str]:
        first, middle, last = self._located(list(str.partition(self, sep)), 0)
        return first, middle, last

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        first, middle, last = self._located(list(str.rpartition(self, sep)), 0)
        return first, middle, last

    def _located(self, pieces: list[str], gap: int) -> list[str]:
        """Give sources to pieces that were cut out of this text in order, `gap` characters apart.

        Without a gap, each piece is searched for after the one before; only white space lies between them.
        """
        located: list[str] = []
        at = 0
        for piece in pieces:
            start = at if gap and not located else str.index(self, piece, at)
            located.append(self.part(start, start + len(piece)))
            at = start + len(piece) + gap
        return located

    # Replacing, changing case, padding.

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        result = str.replace(self, old, new, count)
        if not old:  # then `new` goes between all characters
            return tainted(result, sources_in((self, new)))
        times = count.__index__()
        pieces = self.split(old, times) if times else [self]
        return checked(result, join_texts(_between(pieces, new)), (self, new))

    def lower(self) -> str:
        return self._mapped(str.lower(self))

    def upper(self) -> str:
        return self._mapped(str.upper(self))

    def capitalize(self) -> str:
        return self._mapped(str.capitalize(self))

    def casefold(self) -> str:
        return self._mapped(str.casefold(self))

    def swapcase(self) -> str:
        return self._mapped(str.swapcase(self))

    def title(self) -> str:
        return self._mapped(str.title(self))

    def ljust(self, width: SupportsIndex, fill: str = " ") -> str:
        return placed(str.ljust(self, width, fill), self, 0, fill)

    def rjust(self, width: SupportsIndex, fill: str = " ") -> str:
        result = str.rjust(self, width, fill)
        return placed(result, self, len(result) - len(self), fill)

    def center(self, width: SupportsIndex, fill: str = " ") -> str:
        result = str.center(self, width, fill)
        pad = len(result) - len(self)
        # CPython's str.center puts the odd space on the left for an odd width.
        return placed(result, self, pad // 2 + (pad & width.__index__() & 1), fill)

    def zfill(self, width: SupportsIndex) -> str:
        return tainted(str.zfill(self, width), sources_in(self))

    def _mapped(self, text: str) -> str:
        """Carry the sources over to `text`, which was made from this text character by character.

        No change of case shortens a text.
        """
        return SourcedText(text, self.runs) if len(text) == len(self) else tainted(text, sources_in(self))


def join_texts(texts: Iterable[str]) -> str:
    """Join texts as `"".join` does, with the sources of every part.

    The result is an ordinary str if no part has sources.
    """
    parts = list(texts)
    if not any(isinstance(part, SourcedText) for part in parts):
        return "".join(parts)
    runs: list[tuple[int, Sources]] = []
    for part in parts:
        for length, sources in runs_of(part):
            if runs and runs[-1][1] == sources:
                runs[-1] = (runs[-1][0] + length, sources)
            else:
                runs.append((length, sources))
    return SourcedText("".join(parts), tuple(runs))


def join_with(separator: str, texts: Iterable[str]) -> str:
    """Join texts as `separator.join(texts)` does, with the sources of every part."""
    return join_texts(_between(texts, separator))


def runs_of(text: str) -> Runs:
    """Return the runs of any text; an ordinary str comes from the template."""
    if isinstance(text, SourcedText):
        return text.runs
    return ((len(text), ()),) if text else ()


def tainted(text: str, sources: Sources) -> str:
    """Attach all of `sources` to every character of a text; without sources, return the text unchanged."""
    if not sources:
        return text
    return SourcedText(text, ((len(text), sources),) if text else ())


def sources_in(value: object) -> Sources:
    """Collect the sources of all texts in lists, tuples and dicts (keys included), without duplicates."""
    unique: dict[Source, None] = {}
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, SourcedText):
            for _, sources in item.runs:
                unique.update(dict.fromkeys(sources))
        elif isinstance(item, Mapping):
            pending += [*item, *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += item
    return tuple(unique)


def checked(result: str, followed: str, inputs: object) -> str:
    """Return `followed`, which was assembled with sources, if it equals `result`.

    Otherwise return `result`, tainted by all inputs.
    """
    return followed if str(followed) == str(result) else tainted(result, sources_in(inputs))


def placed(result: str, text: str, at: int, *others: object) -> str:
    """Return `result` with the sources of `text`, which it contains at position `at`."""
    if str.__getitem__(result, slice(at, at + len(text))) != text or sources_in(others):
        return tainted(result, sources_in((text, *others)))
    head, tail = str.__getitem__(result, slice(at)), str.__getitem__(result, slice(at + len(text), None))
    return join_texts((head, text, tail))


def _between(texts: Iterable[str], separator: str) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number:
            yield separator
        yield text
