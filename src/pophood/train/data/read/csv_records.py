"""CSV and TSV files as records, each with the line it begins on, as Python's csv module reads them.

Added to the csv module: a bad line or a quote that is never closed costs one record and not the rest of the
file, rows of blanks are passed over, and columns may be nameless or named twice as long as nobody reads them.
"""

from __future__ import annotations

import csv
import re
import threading
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

from pophood.errors import BadFile
from pophood.train.data.read.json_records import Raw
from pophood.train.data.read.lines import MOST_LINE, Line, read_lines

DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = threading.Lock()  # csv keeps one limit for the whole process
_NAMED_DELIMITER = re.compile(r"sep=[,;\t|]")  # a first line for Excel, which names the delimiter
_LINES = re.compile(r"[^\r]*\r|[^\r]+")  # old Macs end a line with "\r" alone


def read_table(path: Path) -> Iterator[Raw]:
    """Records of a table whose first row names the columns; values are texts, and blank rows are skipped.

    A column without a name has the name "". Raises BadFile where no row names columns.
    """
    rows = _Rows(path)
    names = _names(path, rows)
    for row in rows:
        if row.why is not None:
            yield Raw(row.line, None, row.why, row.end)
        elif any(value.strip() for value in row.values):
            yield _record(row, names, rows.delimiter)


def repeated_columns(path: Path) -> set[str]:
    """The names that stand over more than one column; "" is none."""
    names = Counter(_names(path, _Rows(path)))
    return {name for name, times in names.items() if name and times > 1}


def _names(path: Path, rows: _Rows) -> list[str]:
    for row in rows:
        if row.why is not None:
            raise BadFile(f"{path}: the first line {row.why}; wanted the names of the columns")
        names = [value.strip() for value in row.values]
        if any(names):
            return names
    raise BadFile(f"{path}: is empty; wanted a first line with the names of the columns")


def _record(row: _Row, names: list[str], delimiter: str) -> Raw:
    values = row.values
    counts = f"has {_count(len(values), 'value')} for {_count(len(names), 'column')}"
    if any(value.strip() for value in values[len(names) :]):
        quotes = f"a value with {'a tab' if delimiter == chr(9) else repr(delimiter)} in it needs quotes"
        return Raw(row.line, None, f"{counts}: {quotes}", row.end)
    record: dict[str, str] = {}
    for name, value in zip(names, values, strict=False):
        record.setdefault(name, value)
    return Raw(row.line, record, None, row.end, counts if len(values) < len(names) else None)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


class _Row:
    """The values of one row, or why there are none; where it begins, and bytes of the file up to its end."""

    def __init__(self, line: int, end: int, values: list[str], why: str | None = None) -> None:
        self.line, self.end, self.values, self.why = line, end, values, why


class _Rows(Iterator[_Row]):
    """Rows of a file by csv.reader, which is given the lines of one row at a time."""

    def __init__(self, path: Path) -> None:
        self._lines = _pieces(path)
        self._waiting: deque[Line] = deque()  # to be looked at again after a quote that is never closed
        self._taken: list[Line] = []
        self._open = False
        self.delimiter = "\t"
        if path.suffix.lower() != ".tsv":
            first = self._next()
            if first is not None and _NAMED_DELIMITER.fullmatch(first.text):
                self.delimiter = first.text[4]
            elif first is not None:
                self._waiting.append(first)
                self.delimiter = _delimiter_of(first.text)

    def _next(self) -> Line | None:
        return self._waiting.popleft() if self._waiting else next(self._lines, None)

    def __next__(self) -> _Row:
        self._taken, self._open = [], False
        with _FIELD_LIMIT:
            before = csv.field_size_limit(2 * MOST_LINE)
            try:
                values = next(csv.reader(self._texts(), delimiter=self.delimiter), None)
            except csv.Error as error:
                return _Row(self._taken[0].number, self._taken[-1].end, [], f"is not CSV: {error}")
            finally:
                csv.field_size_limit(before)
        if values is None or not self._taken:
            raise StopIteration
        first, last = self._taken[0], self._taken[-1]
        if last.why is not None:
            where = f"(in line {last.number}) " if last is not first else ""
            return _Row(first.number, last.end, [], where + last.why)
        if self._open:
            self._waiting.extendleft(reversed(self._taken[1:]))
            return _Row(first.number, first.end, [], "opens a quote that is never closed")
        return _Row(first.number, last.end, values)

    def _texts(self) -> Iterator[str]:
        """The lines that csv.reader asks for; it asks for a further one only within quotes."""
        size = 0
        while size <= MOST_LINE and (line := self._next()) is not None:
            self._taken.append(line)
            if line.why is not None:
                yield ""
                return
            size += len(line.text)
            yield line.text if line.text.endswith("\r") else line.text + "\n"
        self._open = bool(self._taken)


def _pieces(path: Path) -> Iterator[Line]:
    for line in read_lines(path):
        if "\r" in line.text:
            yield from (Line(line.number, text, line.why, line.end) for text in _LINES.findall(line.text))
        else:
            yield line


def _delimiter_of(head: str) -> str:
    """The delimiter that cuts a header into the most names; a comma where none cuts it."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([head], delimiter=delimiter), [])))
