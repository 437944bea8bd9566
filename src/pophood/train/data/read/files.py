"""Finds the data files of some paths, and detects the layout of their records."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pophood.errors import BadFile, BadInput, NotFound
from pophood.train.data.read.containers import BY_SUFFIX, Container, is_blank, odd_record, shape_of
from pophood.train.data.read.csv_records import read_table, repeated_columns
from pophood.train.data.read.json_records import Record, read_array, read_jsonl, read_values, read_wrapped
from pophood.train.data.read.layouts import layout_of, read_fields
from pophood.train.data.read.lines import read_lines
from pophood.train.data_options import FIELDS, DataOptions

_SNIFFED = 25  # records with a known layout that decide
_TRIED = 2000  # records to look for these in
# Names of files that mark the parts of a data set, for mlx-lm and the hub's data sets.
_TRAIN = frozenset(("train", "training"))
_HELD = frozenset(("valid", "validation", "val", "dev", "eval", "evaluation", "test", "testing"))
_OTHER_FIELDS = frozenset(("tools", "functions"))  # of records, too, though no layout requires them


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
        if self.container == "wrapped":
            return read_wrapped(self.path, self.key)
        readers = {"jsonl": read_jsonl, "values": read_values, "array": read_array}
        return readers.get(self.container, read_table)(self.path)


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
