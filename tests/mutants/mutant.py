"""One small wrong change to a source file, and the draw of some of them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """Replaces `before`, which begins at `offset` characters into `file`, by `after`.

    `line` counts from 1; `text` is that line without its indentation, for a person and for finding the place
    again in a later version of the file.
    """

    file: str
    line: int
    offset: int
    before: str
    after: str
    kind: str
    text: str

    @classmethod
    def at(cls, file: str, source: str, offset: int, before: str, after: str, kind: str) -> Mutant:
        """The mutant of a place in the text of its file."""
        assert source.startswith(before, offset), (file, offset, before)
        start, end = source.rfind("\n", 0, offset) + 1, source.find("\n", offset)
        text = source[start : end if end >= 0 else None].strip()
        return cls(file, source.count("\n", 0, offset) + 1, offset, before, after, kind, text)

    @property
    def key(self) -> str:
        """Tells it from every other mutant of the same source."""
        return f"{self.file}:{self.offset}:{self.before}:{self.after}"

    def applied(self, source: str) -> str:
        """The file's text with the change."""
        assert source.startswith(self.before, self.offset), f"{self.file} is not the file that was drawn from"
        return source[: self.offset] + self.after + source[self.offset + len(self.before) :]

    def again(self, source: str) -> Mutant | None:
        """Find the change in a later version of the file, on the nearest line of equal text if any."""
        if source.startswith(self.before, self.offset):
            same_place = Mutant.at(self.file, source, self.offset, self.before, self.after, self.kind)
            if same_place.text == self.text:  # even where a line holds the same words twice
                return same_place
        column = self._column()
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        lines = source.splitlines()
        same = [i for i, line in enumerate(lines) if line.strip() == self.text]
        if not same or column is None:
            return None
        nearest = min(same, key=lambda i: abs(i + 1 - self.line))
        offset = starts[nearest] + len(lines[nearest]) - len(lines[nearest].lstrip()) + column
        if not source.startswith(self.before, offset):
            return None
        return Mutant.at(self.file, source, offset, self.before, self.after, self.kind)

    def _column(self) -> int | None:
        first = self.before.split("\n")[0]
        found = self.text.find(first)
        return found if found >= 0 and self.text.count(first) == 1 else None

    def __str__(self) -> str:
        before, after = (" ".join(part.split()) or "nothing" for part in (self.before, self.after))
        return f"{self.file}:{self.line}: {before} -> {after} in: {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return asdict(self)


def shuffled(mutants: Iterable[Mutant], seed: int) -> list[Mutant]:
    """All of them in an order that the seed decides, each line of code at most once."""
    order = sorted(mutants, key=lambda mutant: mutant.key)
    random.Random(seed).shuffle(order)
    lines: set[tuple[str, int]] = set()
    return [m for m in order if (m.file, m.line) not in lines and not lines.add((m.file, m.line))]  # type: ignore[func-returns-value]
