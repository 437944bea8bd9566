"""The container format of a data file (JSONL, JSON array, CSV...), from its name and content."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pophood.errors import BadFile
from pophood.train.data.read.json_records import BadJson, JsonText, parse
from pophood.train.data.read.lines import open_bytes, read_lines

Container = Literal["text", "lines", "jsonl", "values", "array", "wrapped", "csv", "tsv"]
CONTAINERS: dict[Container, str] = {
    "text": "text files",
    "lines": "lines of text",
    "jsonl": "JSONL",
    "values": "JSON objects over several lines",
    "array": "JSON array",
    "wrapped": "JSON array in an object",
    "csv": "CSV",
    "tsv": "TSV",
}
BY_SUFFIX: dict[str, Container] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_PANDAS = "in pandas, DataFrame.to_json(FILE, orient='records', lines=True) writes one"


@dataclass(frozen=True, slots=True)
class FileShape:
    """How a file stores its records."""

    container: Container
    key: str = ""  # container "wrapped": the key of the list of records
    beside: tuple[str, ...] = ()  # and the other keys, which are not read


def shape_of(path: Path, fields: Set[str], records: bool) -> FileShape:
    """Return how a file stores its records, judged by its name and content.

    `fields` are the names that a record may have. With `records`, a text file counts as JSON lines.
    """
    named = BY_SUFFIX.get(path.suffix.lower())
    if named in ("csv", "tsv") or (named == "text" and not records):
        return FileShape(named)
    with open_bytes(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        return FileShape("jsonl" if _lists_by_line(path) else "array")
    if head.startswith(b"{"):
        return _of_object(path, fields)
    if named is not None:
        return FileShape("jsonl")
    if b"\0" in head:
        raise BadFile(f"{path}: is not text (it has NUL bytes); wanted text, JSONL, JSON, CSV or TSV")
    return FileShape("text")


def is_blank(path: Path) -> bool:
    """Return whether a file contains only white space."""
    with open_bytes(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf")
        while head:
            if head.strip():
                return False
            head = file.read(1 << 16)
    return True


def _lists_by_line(path: Path) -> bool:
    """Return whether a file that begins with "[" has one JSON value per line, instead of being one list."""
    lines = (line for line in read_lines(path) if line.why or line.text.strip())
    first, more = next(lines), next(lines, None)
    if more is None:
        return False
    if not first.why and parse(first.text)[1] is None:
        return True
    if (
        not (first.why or more.why or first.text.rstrip().endswith((",", "[")))
        and parse(more.text)[1] is None
    ):
        return True  # the second line is a value, and the first does not end like an unfinished list
    text = JsonText(path)
    try:
        text.expect("[")
        if text.peek() != "]":
            text.value()
    except BadJson:
        return True  # JSON lines, of which the first is damaged
    return False


def _of_object(path: Path, fields: Set[str]) -> FileShape:
    """Return how a file that begins with "{" stores its records."""
    lines = (line for line in read_lines(path) if line.why or line.text.strip())
    first, more = next(lines), next(lines, None)
    value = None if first.why else parse(first.text)[0]
    lists: list[str] = []  # names of lists of objects
    if isinstance(value, dict):
        lists = [name for name, items in value.items() if _has_objects(items)]
        return (None if more else _wrapped(list(value), lists, fields)) or FileShape("jsonl")
    text = JsonText(path)
    names: list[str] = []
    try:
        for name in text.fields():
            names.append(name)
            lists += [name] if text.at_objects() else []
            for _ in text.items() if text.peek() == "[" else [text.value()]:
                pass
    except BadJson:
        if not lists:
            return FileShape("jsonl")  # the first of its lines is damaged
    one_line = text.line == first.number  # then anything after the value on that line is damage
    return _wrapped(names, lists, fields) or FileShape("jsonl" if one_line else "values")


def _wrapped(names: Sequence[str], lists: Sequence[str], fields: Set[str]) -> FileShape | None:
    """Return the shape of an object with a list of records, or None if the object is a record itself.

    The first list of objects has the records. A list called `instances` is a field of a task if the object
    has other fields of records, and else a list of records.
    """
    if not lists or (fields - {"instances"}) & set(names):
        return None
    return FileShape("wrapped", lists[0], tuple(name for name in names if name not in lists))


def _has_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def odd_record(value: Any, alone: bool) -> str | None:
    """Return why a value cannot be a record, and what to do; None for an object.

    `alone`: it is the only value of the file.
    """
    if isinstance(value, dict):
        parts = list(value.values())
        if alone and parts and _is_table(value):
            return f"is a whole table by columns or rows; wanted one record per line: {_PANDAS}"
        if alone and parts and all(isinstance(part, dict) for part in parts):
            return "is one object whose values are objects; wanted a list of them, or one per line"
        return None
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            wanted = 'one object per line, such as {"messages": [...]} for a list of messages'
            return f"has a list of objects where a record should be; wanted {wanted}"
        return f"has a list where a record should be; wanted objects with named fields: {_PANDAS}"
    kind = "text" if isinstance(value, str) else "null" if value is None else "a number"
    return f'has {kind} where a record should be; wanted objects such as {{"text": ...}}'


def _is_table(value: dict[str, Any]) -> bool:
    """Return whether an object is a table as pandas writes it: by column, by row, or split."""
    parts = list(value.values())
    if {"columns", "data"} <= value.keys():
        return True
    if all(isinstance(part, list) for part in parts):
        return not any(isinstance(item, dict) for part in parts for item in part[:5])
    digits = all(isinstance(part, dict) and all(key.isdigit() for key in part) for part in parts)
    return digits or (all(key.isdigit() for key in value) and all(isinstance(part, dict) for part in parts))
