"""Which files hold the data, and what their records are: folders walked, layouts told apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pophood.errors import BadFile, BadInput, NotFound
from pophood.train.data.read.containers import BY_SUFFIX, Container, is_blank, odd_record, shape_of
from pophood.train.data.read.csv_records import read_table, repeated_columns
from pophood.train.data.read.json_records import Raw, read_array, read_jsonl, read_values, read_wrapped
from pophood.train.data.read.layouts import layout_of, read_fields
from pophood.train.data_options import FIELDS, DataOptions

_SNIFFED = 25  # good records that are looked at
_TRIED = 2000  # records among which these are sought
# Names of files by which mlx-lm and the hub's data sets tell the parts of a data set.
_TRAIN = frozenset(("train", "training"))
_HELD = frozenset(("valid", "validation", "val", "dev", "eval", "evaluation", "test", "testing"))
_OTHER_FIELDS = frozenset(("tools", "functions"))  # of records too, though none of them names a layout


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file, and how it is read: as texts, or as records of one layout."""

    path: Path
    container: Container
    layout: str  # of LAYOUTS
    key: str = ""  # under which the list of records is, in a container "wrapped"
    beside: tuple[str, ...] = ()  # names beside it, which are not read

    def records(self) -> Iterator[Raw]:
        """The records of a file that has some (not "text", not "lines")."""
        if self.container == "wrapped":
            return read_wrapped(self.path, self.key)
        readers = {"jsonl": read_jsonl, "values": read_values, "array": read_array}
        return readers.get(self.container, read_table)(self.path)


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The data files of some paths, and the files that were passed over."""

    files: tuple[DataFile, ...]
    skipped: tuple[Path, ...]  # of folders, by their names
    empty: tuple[Path, ...]  # without a record or a letter

    @property
    def beside(self) -> tuple[str, ...]:
        """Names that objects have beside their lists of records, and that are not read."""
        return tuple(dict.fromkeys(name for file in self.files for name in file.beside))

    @property
    def kept_apart(self) -> tuple[Path, ...]:
        """Files whose names say that they are not to train on, beside one whose name says that it is."""
        words = {file.path: set(re.split(r"[^a-z]+", file.path.stem.lower())) for file in self.files}
        train = any(said & _TRAIN for said in words.values())
        return tuple(path for path, said in words.items() if train and said & _HELD and not said & _TRAIN)


def find_files(paths: Sequence[Path], options: DataOptions) -> FoundFiles:
    """The data files of paths and folders, sorted within each folder.

    Raises NotFound for what does not exist, BadFile where a file's format cannot be told, BadInput where no
    file holds anything.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    for path in paths:
        if not path.exists():
            raise NotFound(f"{path}: there is no such file or folder; check the path")
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file() and not _hidden(file, path)]
            found += [file for file in inside if file.suffix.lower() in BY_SUFFIX]
            skipped += [file for file in inside if file.suffix.lower() not in BY_SUFFIX]
        else:
            found.append(path)
    if not found:
        names = ", ".join(str(path) for path in paths)
        raise BadInput(f"{names}: holds no data; wanted files that end in {' '.join(BY_SUFFIX)}")
    files = [(path, _data_file(path, options)) for path in found]
    empty = tuple(path for path, file in files if file is None)
    if len(empty) == len(found):
        raise BadInput(f"{found[0]}: is empty; wanted text, or records such as one JSON object a line")
    return FoundFiles(tuple(file for _, file in files if file is not None), tuple(skipped), empty)


def content_hash(files: Sequence[DataFile]) -> str:
    """A hash of the files' bytes and of how they are read."""
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
    """How a file is read; None for one that is empty."""
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
        container = "jsonl"  # records were asked for
    file = DataFile(path, container, options.format, shape.key, shape.beside)
    if options.format == "auto":
        layout = _layout(file, options)
        if layout is None:
            return None
        file = replace(file, layout=layout)
    _check_columns(file, options)
    return file


def _layout(file: DataFile, options: DataOptions) -> str | None:
    """The layout that most of the first good records have; None for a file without records."""
    votes: dict[str, int] = {}
    first: Raw | None = None
    good: list[object] = []
    for number, raw in enumerate(file.records()):
        first = raw if first is None else first
        if raw.why is None:
            good = good if len(good) > 1 else [*good, raw.value]
            layout = layout_of(raw.value, options.columns)
            if layout is not None:
                votes[layout] = votes.get(layout, 0) + 1
        if sum(votes.values()) >= _SNIFFED or number >= _TRIED:
            break
    if first is None:
        return None
    if not good:
        raise BadFile(
            f"{file.path}: none of its first records can be read; that of line {first.line} {first.why}"
        )
    odd = odd_record(good[0], alone=len(good) == 1)
    if votes and not (odd and len(good) == 1):
        return max(votes, key=lambda layout: votes[layout])
    if odd:
        raise BadFile(f"{file.path}: {odd}")
    raise BadFile(f"{file.path}: {_unknown(good[0], file.container)}")


def _unknown(example: object, container: Container) -> str:
    """The fields of a record that fits no layout, what was wanted, and what to do."""
    names = list(example) if isinstance(example, dict) else []
    has = ", ".join(repr(str(name)[:30]) for name in names[:8])
    if container == "tsv" and len(names) == 1 and "," in str(names[0]):
        return f"has one column, {has}; a .tsv is separated by tabs: name the file .csv if commas separate it"
    for turn, field in (({"role", "content"}, "messages"), ({"from", "value"}, "conversations")):
        if turn <= set(names):
            way = f'wanted one object for each conversation, as {{"{field}": [...]}}'
            return f"its records are single messages ({has}); {way}"
    wanted = "text | prompt, completion | messages | instruction, output | conversations"
    return (
        f"its records have {has or 'nothing'}; wanted {wanted}: say which field is which, as in"
        " --columns prompt=question,completion=answer (in Python"
        ' columns={"prompt": "question", "completion": "answer"})'
    )


def _check_columns(file: DataFile, options: DataOptions) -> None:
    """Refuse a table in which a column that is read is named more than once."""
    if file.container in ("csv", "tsv"):
        twice = repeated_columns(file.path) & read_fields(file.layout, options.columns)
        if twice:
            raise BadFile(
                f"{file.path}: the first line names {min(twice)!r} more than once; wanted once, as it is"
                " read: rename or remove the others"
            )
