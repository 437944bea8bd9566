"""What was found in the data: counts, bad lines, warnings. Plain data, for people and for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pophood.table import Table

MOST_LISTED = 10_000  # bad lines that are kept one by one; further ones are counted


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line, record or item that could not be used, where it is, and why."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading has come; `total` and `done` are bytes of the source files."""

    done: int
    total: int
    documents: int
    tokens: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """One reading of data: good + bad = total, in lines, records or items as the format has them."""

    format: str  # "messages (JSONL), found by its first records"
    files: tuple[str, ...]
    good: int
    bad_count: int
    bad: tuple[BadLine, ...]  # the first 10,000
    documents: int  # of training and validation together
    validation_documents: int
    tokens: int  # of both, as they are in the files
    trained_tokens: int  # of the training side, after cutting: what one epoch learns from
    validation_tokens: int  # the same of the validation side
    longest: int  # tokens of the longest document
    truncated: int  # documents that lose their end
    tokens_cut: int
    split: int  # documents that became several pieces
    duplicates: int  # documents that repeat an earlier one, spaces and case aside
    overlap: int  # training documents left out because the validation files have them too
    unused: Mapping[str, int]  # fields of the records that nothing reads -> how many records have them
    completions_only: bool
    notes: tuple[str, ...]  # what was done, in words
    warnings: tuple[str, ...]  # what is probably not wanted
    cache: str  # the folder with the ids
    cache_bytes: int
    cached: bool  # it was there already

    @property
    def total(self) -> int:
        """Good and bad together."""
        return self.good + self.bad_count

    def bad_table(self) -> Table:
        """The bad lines as a table."""
        return Table(("file", "line", "why"), tuple((line.file, line.line, line.why) for line in self.bad))
