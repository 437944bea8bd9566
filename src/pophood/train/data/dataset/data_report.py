"""The report on the data of a run: counts, bad lines, notes and warnings, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pophood.table import Table

MOST_LISTED = 10_000  # bad lines to list; all are counted


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line or record that cannot be used, and the reason."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.why}"


@dataclass(frozen=True, slots=True)
class DataProgress:
    """The progress of reading; `done` and `total` are bytes of the files."""

    done: int
    total: int
    documents: int
    tokens: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """The report. `good` and `bad_count` are lines or records, as the format has them."""

    format: str  # "messages (JSONL), detected from the first good records"
    files: tuple[str, ...]
    good: int
    bad_count: int
    bad: tuple[BadLine, ...]  # the first 10,000
    documents: int  # of training and validation together
    validation_documents: int
    tokens: int  # of both, before cutting
    trained_tokens: int  # learned in one epoch of the training side, after cutting
    validation_tokens: int  # the same for the validation side
    longest: int  # tokens of the longest document
    truncated: int  # documents that lose their end
    tokens_cut: int
    split: int  # documents in several pieces
    duplicates: int  # documents that repeat another one, ignoring spaces and case
    overlap: int  # training documents left out because the validation files contain them
    unused: Mapping[str, int]  # field that nothing reads -> number of records that have it
    completions_only: bool
    notes: tuple[str, ...]  # how the data was read
    warnings: tuple[str, ...]  # probable mistakes in the data
    cache: str  # the folder with the token ids
    cache_bytes: int
    cached: bool  # from an earlier run

    @property
    def total(self) -> int:
        """All lines or records, good and bad."""
        return self.good + self.bad_count

    def bad_table(self) -> Table:
        """Return the bad lines as a table."""
        return Table(("file", "line", "why"), tuple((line.file, line.line, line.why) for line in self.bad))
