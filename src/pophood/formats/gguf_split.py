"""Split GGUF models: opens the parts that llama.cpp's gguf-split writes as one model.

    model-00001-of-00003.gguf     all keys, split.no 0, split.count 3, split.tensors.count for all parts
    model-00002-of-00003.gguf     the three split keys, with split.no 1
    model-00003-of-00003.gguf     ...

Every part is itself a GGUF file. The rules are those of llama.cpp (llama-model-loader.cpp): the names and
numbers of the parts agree, no tensor occurs in two parts, and together they hold as many tensors as the first
part says. llama.cpp must be given the first part and ignores the keys of the others; here any part may be
given, and a part whose keys contradict the first is refused.
"""

from __future__ import annotations

from contextlib import ExitStack
from os import PathLike
from pathlib import Path

import numpy as np

from pophood.errors import BadFile, NotFound, quoted
from pophood.formats.gguf import GGUFFile, open_gguf_file
from pophood.formats.parts import MAX_PARTS, Part, part_of
from pophood.formats.tensors import Tensor

NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
_ADVICE = "fetch all parts of the model again"


def open_gguf(path: str | PathLike[str]) -> GGUFFile:
    """Map a GGUF file and read its metadata and tensor list; no weights are read.

    Any part of a split model opens the whole model, whose other parts must be in the same folder. The
    metadata are those of the first part without the `split.` keys. Raises what `open_gguf_file` raises,
    NotFound for a missing part, BadFile for parts that do not belong together.

    Example: `open_gguf("model.gguf").metadata["general.architecture"]` is `"llama"`.
    """
    path = Path(path)
    with ExitStack() as opened:  # closes the parts if they turn out not to be one model
        named = opened.enter_context(open_gguf_file(path))
        files = [named]
        if _number(named, COUNT, 0) > 1:
            place = _place(named)
            for number, name in enumerate(place.names, start=1):
                if number == place.number:
                    continue
                other = path.with_name(name)
                if not other.is_file():
                    raise NotFound(
                        f"{path}: part {number} of {place.count}, {quoted(name)}, is missing: put all parts"
                        " in one folder, or pull the model again"
                    )
                files.append(opened.enter_context(open_gguf_file(other)))
                _place(files[-1])
            files.sort(key=lambda file: _number(file, NUMBER, 0))
            named = _joined(files)
        opened.pop_all()
        return named


def _place(file: GGUFFile) -> Part:
    """Return a part's number and count according to its keys, and check that its name agrees."""
    number, count = _number(file, NUMBER) + 1, _number(file, COUNT)
    if count > MAX_PARTS:
        raise BadFile(f"{file.path}: claims {count:,} parts, wanted at most {MAX_PARTS}: {_ADVICE}")
    if number > count:
        raise BadFile(
            f"{file.path}: is part {number:,} of {count:,} by its keys {NUMBER}, {COUNT}: {_ADVICE}"
        )
    part = part_of(file.path.name)
    if part is None:
        wanted = f"NAME-{number:05}-of-{count:05}.gguf"
        raise BadFile(
            f"{file.path}: is part {number} of a model in {count} parts, which are found by their names: "
            f"rename it to {wanted}, and the others likewise, in the same folder"
        )
    if (part.number, part.count) != (number, count):
        raise BadFile(
            f"{file.path}: is part {part.number} of {part.count} by its name, but {number} of {count} by its "
            f"keys {NUMBER}, {COUNT}: {_ADVICE}"
        )
    return part


def _joined(files: list[GGUFFile]) -> GGUFFile:
    """Join all parts, in order, to one file."""
    first = files[0]
    tensors: dict[str, Tensor] = {}
    owner: dict[str, Path] = {}
    for file in files:
        for key, value in file.metadata.items():
            known = first.metadata.get(key)
            if key != NUMBER and file is not first and not _equal(known, value):
                raise BadFile(
                    f"{file.path}: the key {quoted(key)} differs from that in {first.path.name}: these are "
                    f"parts of different models; {_ADVICE}"
                )
        for name, tensor in file.tensors.items():
            if name in tensors:
                raise BadFile(
                    f"{file.path}: the tensor {quoted(name)} is also in {owner[name].name}: {_ADVICE}"
                )
            tensors[name], owner[name] = tensor, file.path
    wanted = _number(first, TENSORS)
    if wanted != len(tensors):
        raise BadFile(
            f"{first.path}: its {len(files)} parts hold {len(tensors):,} tensors, wanted {wanted:,} "
            f"({TENSORS}): {_ADVICE}"
        )
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith("split.")}
    mappings = [mapping for file in files for mapping in file.mappings]
    return GGUFFile(first.path, tensors, mappings, first.version, metadata)


def _number(file: GGUFFile, key: str, default: int | None = None) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int or value < 0:
        got = "is missing" if value is None else f"is {quoted(str(value))}"
        raise BadFile(f"{file.path}: the key {key} {got}, wanted a whole number of at least 0: {_ADVICE}")
    return value


def _equal(one: object, other: object) -> bool:
    """Return whether two metadata values have the same type and value."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other) and not isinstance(one, np.ndarray) and one == other
