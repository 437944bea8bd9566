"""Finds the data files of some paths, and detects their format (JSONL, JSON array, CSV...) and layout."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pophood.errors import BadFile, BadInput, NotFound
from pophood.train.data.read.csv_records import read_table, repeated_columns
from pophood.train.data.read.json_records import BadJson, JsonText, Record, parse, read_json, read_jsonl
from pophood.train.data.read.layouts import layout_of, read_fields
from pophood.train.data.read.lines import open_bytes, read_lines
from pophood.train.settings import FIELDS, DataOptions

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
_SNIFFED = 25  # records of a known layout that decide on the layout of a file
_TRIED = 2000  # records in which they are looked for
# Names of files that mark the parts of a data set, for mlx-lm and the hub's data sets.
_TRAIN = frozenset(("train", "training"))
_HELD = frozenset(("valid", "validation", "val", "dev", "eval", "evaluation", "test", "testing"))
_OTHER_FIELDS = frozenset(("tools", "functions"))  # of records, although no layout requires them


@dataclass(frozen=True, slots=True)
class FileShape:
    """How a file stores its records."""

    container: Container
    key: str = ""  # container "wrapped": the key of the list of records
    beside: tuple[str, ...] = ()  # and the other keys, which are not read


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file and how to read it: as text, or as records of one layout."""

    path: Path
    container: Container
    layout: str  # a key of LAYOUTS
    key: str = ""  # container "wrapped": the key of the list of records
    beside: tuple[str, ...] = ()  # and the other keys, which are not read

    def records(self) -> Iterator[Record]:
        """Yield the records of a file (of a container other than "text")."""
        if self.container == "lines":
            lines = read_lines(self.path)
            return (Record(ln.number, ln.text, ln.why, ln.end) for ln in lines if ln.why or ln.text.strip())
        if self.container in ("csv", "tsv"):
            return read_table(self.path)
        if self.container == "jsonl":
            return read_jsonl(self.path)
        return read_json(self.path, self.container, self.key)


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The data files of some paths, and the files that are not read."""

    files: tuple[DataFile, ...]
    skipped: tuple[Path, ...]  # in folders: not data, by their suffixes
    empty: tuple[Path, ...]  # without a record, or blank

    @property
    def beside(self) -> tuple[str, ...]:
        """Keys beside the lists of records, which are not read."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.beside))

    @property
    def kept_apart(self) -> tuple[Path, ...]:
        """Files named as validation or test data, if another file is named as training data."""
        words = {file.path: set(re.split(r"[^a-z]+", file.path.stem.lower())) for file in self.files}
        if not any(names & _TRAIN for names in words.values()):
            return ()
        return tuple(path for path, names in words.items() if names & _HELD and not names & _TRAIN)


def find_files(paths: Sequence[Path], options: DataOptions) -> FoundFiles:
    """Return the data files of paths and folders, sorted within each folder.

    Raises NotFound for a path that does not exist, BadFile if a file's format cannot be detected, BadInput if
    there is no file, or all are empty.
    """
    candidates: list[Path] = []
    skipped: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path}: there is no such file or folder; check the path")
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
            candidates += [file for file in inside if file.suffix.lower() in BY_SUFFIX]
            skipped += [file for file in inside if file.suffix.lower() not in BY_SUFFIX]
        else:
            candidates.append(path)
    if not candidates:
        names = ", ".join(str(path) for path in paths)
        raise BadInput(f"{names}: has no data files; wanted files that end in {' '.join(BY_SUFFIX)}")
    files = [(path, _data_file(path, options)) for path in candidates]
    empty = tuple(path for path, file in files if file is None)
    if len(empty) == len(candidates):
        raise BadInput(f"{candidates[0]}: is empty; wanted text, or records such as one JSON object per line")
    return FoundFiles(tuple(file for _, file in files if file is not None), tuple(skipped), empty)


def content_hash(files: Sequence[DataFile]) -> str:
    """Return a hash of the files' bytes and of how they are read."""
    whole = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.path.open("rb") as opened:
            digest = hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16))
        how = f"{file.container} {file.layout} {file.key!r}"
        whole.update(f"{how} {digest.hexdigest()} {file.path.name}\n".encode())
    return whole.hexdigest()


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _data_file(path: Path, options: DataOptions) -> DataFile | None:
    """Return how to read a file; None if it is empty."""
    if is_blank(path):
        return None
    if options.format == "lines":
        return DataFile(path, "lines", "lines")
    names = {options.columns.get(name, name) for name in FIELDS} | _OTHER_FIELDS
    shape = shape_of(path, names, records=options.format not in ("auto", "text"))
    container = shape.container
    if container == "text":
        if options.format in ("auto", "text"):
            return DataFile(path, "text", "text")
        container = "jsonl"  # --format names a layout of records
    file = DataFile(path, container, options.format, shape.key, shape.beside)
    if options.format == "auto":
        layout = _layout(file, options)
        if layout is None:
            return None
        file = replace(file, layout=layout)
    _check_columns(file, options)
    return file


def _layout(file: DataFile, options: DataOptions) -> str | None:
    """Return the layout that most of the first good records have; None for a file without records."""
    votes: dict[str, int] = {}
    first: Record | None = None
    good: list[object] = []
    for number, record in enumerate(file.records()):
        first = record if first is None else first
        if record.why is None:
            good = good if len(good) > 1 else [*good, record.value]
            layout = layout_of(record.value, options.columns)
            if layout is not None:
                votes[layout] = votes.get(layout, 0) + 1
        if sum(votes.values()) >= _SNIFFED or number >= _TRIED:
            break
    if first is None:
        return None
    if not good:
        raise BadFile(
            f"{file.path}: none of its first records can be read; the one in line {first.line} {first.why}"
        )
    odd = odd_record(good[0], alone=len(good) == 1)
    if votes and not (odd and len(good) == 1):
        return max(votes, key=lambda layout: votes[layout])
    if odd:
        raise BadFile(f"{file.path}: {odd}")
    raise BadFile(f"{file.path}: {_unknown(good[0], file.container)}")


def _unknown(example: object, container: Container) -> str:
    """Return the message for a record that fits no layout."""
    names = list(example) if isinstance(example, dict) else []
    has = ", ".join(repr(str(name)[:30]) for name in names[:8])
    if container == "tsv" and len(names) == 1 and "," in str(names[0]):
        return f"has one column, {has}; a .tsv is separated by tabs: name the file .csv if commas separate it"
    for turn, field in (({"role", "content"}, "messages"), ({"from", "value"}, "conversations")):
        if turn <= set(names):
            wanted = f'wanted one object per conversation, such as {{"{field}": [...]}}'
            return f"its records are single messages ({has}); {wanted}"
    wanted = "text | prompt, completion | messages | instruction, output | conversations"
    return (
        f"its records have {has or 'nothing'}; wanted {wanted}: say which field is which, as in"
        " --columns prompt=question,completion=answer (in Python"
        ' columns={"prompt": "question", "completion": "answer"})'
    )


def _check_columns(file: DataFile, options: DataOptions) -> None:
    """Raise BadFile for a table in which several columns have a name that is read."""
    if file.container in ("csv", "tsv"):
        twice = repeated_columns(file.path) & read_fields(file.layout, options.columns)
        if twice:
            raise BadFile(
                f"{file.path}: the first line names {min(twice)!r} more than once; which must be unique,"
                " since it is read: rename or remove the others"
            )


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
    unfinished = first.text.rstrip().endswith((",", "["))
    if not (first.why or more.why or unfinished) and parse(more.text)[1] is None:
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
