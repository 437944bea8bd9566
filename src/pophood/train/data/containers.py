"""How a file holds its records: judged by its content where its name leaves that open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, Literal

from pophood.errors import BadFile
from pophood.train.data.lines import open_bytes, read_lines
from pophood.train.data.raw import BadJson, JsonText, parse

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


def container_of(path: Path, fields: Set[str], records: bool) -> tuple[Container, str]:
    """The container of a file, and the key under which an object has the list of its records ("" elsewhere).

    `fields` are the names that records have; with `records` a text file is taken for JSON lines.
    """
    named = BY_SUFFIX.get(path.suffix.lower())
    if named in ("csv", "tsv"):
        return named, ""
    if named == "text" and not records:
        return named, ""
    with open_bytes(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        return ("jsonl" if _lists_by_line(path) else "array"), ""
    if head.startswith(b"{"):
        return _of_object(path, fields)
    if named is not None:
        return "jsonl", ""
    if b"\0" in head:
        raise BadFile(f"{path}: is not text (it has NUL bytes); wanted text, JSONL, JSON, CSV or TSV")
    return "text", ""


def is_blank(path: Path) -> bool:
    """Whether a file holds nothing but white space."""
    with open_bytes(path) as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf")
        while head:
            if head.strip():
                return False
            head = file.read(1 << 16)
    return True


def _lists_by_line(path: Path) -> bool:
    """Whether a file that begins with "[" has a value a line, and is not one list over all of them."""
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
        return True  # the second line is whole, and no comma or bracket before it makes it an item
    text = JsonText(path)
    try:
        text.expect("[")
        if text.peek() != "]":
            text.value()
    except BadJson:
        return True  # lines of which the first is damaged
    return False


def _of_object(path: Path, fields: Set[str]) -> tuple[Container, str]:
    """The container of a file that begins with "{"."""
    lines = (line for line in read_lines(path) if line.why or line.text.strip())
    first, more = next(lines), next(lines, None)
    value = None if first.why else parse(first.text)[0]
    lists: list[str] = []  # names of lists of objects
    if isinstance(value, dict):
        lists = [name for name, items in value.items() if _has_objects(items)]
        key = None if more else _key_of_records(value, lists, fields)
        return ("jsonl", "") if key is None else ("wrapped", key)
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
            return "jsonl", ""  # lines of which the first is damaged
    key = _key_of_records(names, lists, fields)
    if key is not None:
        return "wrapped", key
    return "jsonl" if text.line == first.number else "values", ""  # a line with more than one value is bad


def _key_of_records(names: Iterable[str], lists: Sequence[str], fields: Set[str]) -> str | None:
    """The first list of objects in an object that has no field of a record; None where it is a record itself.

    `instances` are a field of a task beside its instruction, and a list of records alone.
    """
    return lists[0] if lists and not (fields - {"instances"}) & set(names) else None


def _has_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def odd_record(value: Any, alone: bool) -> str | None:
    """How a value that is no record differs from one, and what to do; None for an object of other fields.

    `alone`: the file has no other value.
    """
    if isinstance(value, dict):
        parts = list(value.values())
        if alone and parts and _is_table(value):
            return f"is a whole table by columns or rows; wanted a record a line: {_PANDAS}"
        if alone and parts and all(isinstance(part, dict) for part in parts):
            return "is one object whose values are objects; wanted a list of them, or one a line"
        return None
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            way = 'wanted an object a line, as {"messages": [...]} for a list of messages'
            return f"has a list of objects where a record should be; {way}"
        return f"has a list where a record should be; wanted objects with named fields: {_PANDAS}"
    kind = "text" if isinstance(value, str) else "null" if value is None else "a number"
    return f'has {kind} where a record should be; wanted objects such as {{"text": ...}}'


def _is_table(value: dict[str, Any]) -> bool:
    """Whether an object is what pandas makes of a table: lists or objects by column, by row, or split."""
    parts = list(value.values())
    if {"columns", "data"} <= value.keys():
        return True
    if all(isinstance(part, list) for part in parts):
        return not any(isinstance(item, dict) for part in parts for item in part[:5])
    digits = all(isinstance(part, dict) and all(key.isdigit() for key in part) for part in parts)
    return digits or (all(key.isdigit() for key in value) and all(isinstance(part, dict) for part in parts))
