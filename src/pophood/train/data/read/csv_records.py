"""Reads CSV and TSV files as records, with Python's csv module.

Unlike the csv module alone, a bad line or an unclosed quote costs one record and not the rest of the file,
blank rows are skipped, and columns that are not read may have no name, or the same one.
"""

from __future__ import annotations

import csv
import re
import threading
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from pophood.errors import BadFile
from pophood.table import count
from pophood.train.data.read.json_records import Record
from pophood.train.data.read.lines import MOST_LINE, TextLine, read_lines

DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = threading.Lock()  # csv keeps one limit for the whole process
_NAMED_DELIMITER = re.compile(r"sep=[,;\t|]")  # a first line that tells Excel the delimiter
_AFTER_RETURN = re.compile(r"(?<=\r)")  # old Macs end lines with "\r" alone


def read_table(path: Path) -> Iterator[Record]:
    """Yield the records of a table whose first row has the column names; all values are text.

    Blank rows are skipped. A column without a name is called "". Raises BadFile if no row has column names.
    """
    rows = _Rows(path)
    names = _names(path, rows)
    for row in rows:
        if row.why is not None:
            yield row
        elif any(value.strip() for value in row.value):
            yield _record(row, names, rows.delimiter)


def repeated_columns(path: Path) -> set[str]:
    """Return the names that more than one column has, except ""."""
    names = Counter(_names(path, _Rows(path)))
    return {name for name, times in names.items() if name and times > 1}


def _names(path: Path, rows: _Rows) -> list[str]:
    for row in rows:
        if row.why is not None:
            raise BadFile(f"{path}: the first line {row.why}; wanted the names of the columns")
        names = [value.strip() for value in row.value]
        if any(names):
            return names
    raise BadFile(f"{path}: is empty; wanted a first line with the names of the columns")


def _record(row: Record, names: list[str], delimiter: str) -> Record:
    values: list[str] = row.value
    counts = f"has {count(len(values), 'value')} for {count(len(names), 'column')}"
    if any(value.strip() for value in values[len(names) :]):
        quotes = f"a value with {'a tab' if delimiter == chr(9) else repr(delimiter)} in it needs quotes"
        return Record(row.line, None, f"{counts}: {quotes}", row.end)
    record: dict[str, str] = {}
    for name, value in zip(names, values, strict=False):
        record.setdefault(name, value)
    return Record(row.line, record, None, row.end, counts if len(values) < len(names) else None)


class _Rows(Iterator[Record]):
    """The rows of a file as lists of texts. csv.reader gets the lines of one row at a time."""

    def __init__(self, path: Path) -> None:
        self._lines = _pieces(path)
        self._waiting: deque[TextLine] = deque()  # lines to read again after an unclosed quote
        self._taken: list[TextLine] = []
        self._open = False
        self.delimiter = "\t"
        if path.suffix.lower() != ".tsv":
            first = self._next()
            if first is not None and _NAMED_DELIMITER.fullmatch(first.text):
                self.delimiter = first.text[4]
            elif first is not None:
                self._waiting.append(first)
                self.delimiter = _delimiter_of(first.text)

    def _next(self) -> TextLine | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def __next__(self) -> Record:
        self._taken, self._open = [], False
        with _FIELD_LIMIT:
            before = csv.field_size_limit(2 * MOST_LINE)
            try:
                values = next(csv.reader(self._texts(), delimiter=self.delimiter), None)
            except csv.Error as error:
                return Record(self._taken[0].number, None, f"is not CSV: {error}", self._taken[-1].end)
            finally:
                csv.field_size_limit(before)
        if values is None or not self._taken:
            raise StopIteration
        first, last = self._taken[0], self._taken[-1]
        if last.why is not None:
            where = f"(in line {last.number}) " if last is not first else ""
            return Record(first.number, None, where + last.why, last.end)
        if self._open:
            self._waiting.extendleft(reversed(self._taken[1:]))
            return Record(first.number, None, "opens a quote that is never closed", first.end)
        return Record(first.number, values, None, last.end)

    def _texts(self) -> Iterator[str]:
        """Yield lines to csv.reader, which takes more than one only within quotes."""
        size = 0
        while size <= MOST_LINE and (line := self._next()) is not None:
            self._taken.append(line)
            if line.why is not None:
                yield ""
                return
            size += len(line.text)
            yield line.text if line.text.endswith("\r") else line.text + "\n"
        self._open = bool(self._taken)


def _pieces(path: Path) -> Iterator[TextLine]:
    for line in read_lines(path):
        for text in _AFTER_RETURN.split(line.text):
            yield TextLine(line.number, text, line.why, line.end)


def _delimiter_of(head: str) -> str:
    """Return the delimiter that splits a header into the most names; a comma if none does."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([head], delimiter=delimiter), [])))
