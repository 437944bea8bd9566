"""Reads safetensors: one file, or the shards of an index. The writer is safetensors_write.py.

    | u64 length of the header, little-endian | header: JSON, may be padded with spaces | data |
    header: {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, ..., "__metadata__": {text: text}}

Offsets count from the first byte of the data. The rules are those of the reference implementation
(huggingface/safetensors, tensor.rs, `Metadata::validate`): no overlap, no gap, no byte after the last tensor,
no name twice, a header of at most 100 MB. So a file has one reading, and reading it never takes more memory
than its size. Values are not checked here.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pophood.errors import BadFile, Unsupported, quoted
from pophood.formats.json_file import parse_json
from pophood.formats.parts import MAX_PARTS, part_of
from pophood.formats.sniff import confined, identify
from pophood.formats.tensors import MappedFile, Tensor, mapped
from pophood.system import map_file

MAX_HEADER = 100_000_000  # as in the reference implementation
MAX_DIMENSIONS = 32

# Bits per value. Tensors of types outside quant.BLOCKS can be listed and ignored, but not decoded.
DTYPE_BITS: dict[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(slots=True, eq=False, repr=False)
class SafetensorsFile(MappedFile):
    """An open safetensors file, or all shards of an index. Iterating gives names, `file[name]` a Tensor."""

    metadata: dict[str, str]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_safetensors(path: str | PathLike[str]) -> SafetensorsFile:
    """Map one safetensors file and read its header; no weights are read.

    Raises BadFile for a file that breaks the format or contradicts itself, Unsupported for an unknown dtype.

    Example: `open_safetensors("model.safetensors").tensors["wte.weight"].shape` is `(50257, 768)`.
    """
    path = Path(path)
    with mapped(path) as mapping:
        tensors, metadata = _Header(str(path)).read(mapping)
    return SafetensorsFile(path, tensors, [mapping], metadata)


def open_sharded(path: str | PathLike[str]) -> SafetensorsFile:
    """Open all shards of a model as one file, by their index or, without one, by the name of a shard.

    Shards must be plain names beside the index (see `confined`) and hold exactly the tensors that the index
    lists; without an index, no tensor may occur twice. Raises BadFile otherwise, and whatever
    `open_safetensors` raises.

    Example: `open_sharded("model.safetensors.index.json").tensors["lm_head.weight"]`.
    """
    path = Path(path)
    part = part_of(path.name)
    shards: dict[str, set[str] | None] = dict.fromkeys(part.names) if part is not None else {**_shards(path)}
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    mappings: list[mmap.mmap] = []
    with ExitStack() as opened:  # closes the shards if they turn out not to be one model
        for shard, names in shards.items():
            place = _shard(path, shard)
            if identify(place) != "safetensors":  # `identify` itself raises for a pickle
                raise BadFile(
                    f"{path}: the shard {quoted(shard)} is not a safetensors file: fetch the model again"
                )
            file = opened.enter_context(open_safetensors(place))
            if names is not None:
                _compare(file, names, path.name)
            twice = file.tensors.keys() & tensors.keys()
            if twice:
                raise BadFile(
                    f"{place}: the tensor {quoted(min(twice))} is also in another shard: the shards are not "
                    "of one model; fetch it again"
                )
            tensors |= file.tensors
            metadata |= file.metadata
            mappings += file.mappings
        opened.pop_all()
    return SafetensorsFile(path, tensors, mappings, metadata)


def _shard(path: Path, name: str) -> Path:
    """Return the path of a shard; if the index belongs to other shards than those here, the error says so."""
    try:
        return confined(path.parent, name)
    except BadFile:
        here = [part for each in sorted(path.parent.glob("*.safetensors")) if (part := part_of(each.name))]
        complete = here and all((path.parent / each).is_file() for each in here[0].names)
        foreign = complete and name not in here[0].names and len({part.first for part in here}) == 1
        if foreign and part_of(path.name) is None:
            raise BadFile(
                f"{path}: names {quoted(name)}, which is missing, while a complete set of {here[0].count} "
                "other shards is here: the index belongs to another version; delete it to open them"
            ) from None
        raise


def _compare(file: SafetensorsFile, names: set[str], index: str) -> None:
    """Check that a shard holds exactly the tensors that the index lists."""
    missing, extra = names - file.tensors.keys(), file.tensors.keys() - names
    for wrong, verb in ((missing, "lacks"), (extra, "also holds")):
        if wrong:
            raise BadFile(
                f"{file.path}: {verb} {len(wrong)} tensors compared with {index}, first {quoted(min(wrong))}"
                ": the shards are not of one model; fetch it again"
            )


def _shards(path: Path) -> dict[str, set[str]]:
    """Read an index: shard file name -> names of its tensors."""
    with map_file(path) as mapping:
        if len(mapping) > MAX_HEADER:
            raise BadFile(
                f"{path}: the index has {len(mapping):,} bytes, wanted at most {MAX_HEADER:,}: fetch it again"
            )
        index = parse_json(mapping[:], f"{path}: the index")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFile(f"{path}: the index has no weight_map from tensors to files: fetch it again")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str):
            raise BadFile(f"{path}: weight_map gives {quoted(name)} no file name: fetch it again")
        shards.setdefault(shard, set()).add(name)
    if len(shards) > MAX_PARTS:
        raise BadFile(f"{path}: names {len(shards):,} shards, wanted at most {MAX_PARTS}: fetch it again")
    return dict(sorted(shards.items()))


class _HeaderEntry(NamedTuple):
    """One tensor of a header; its fields are checked individually."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Header:
    """Reads the header of one mapped file; every error begins with `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def bad(self, text: str, advice: str = "the file is damaged; fetch it again") -> BadFile:
        return BadFile(f"{self.path}: {text}: {advice}")

    def read(self, mapping: mmap.mmap) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read the header: the tensors, and the texts of `__metadata__`."""
        size = len(mapping)
        if size < 8:
            raise self.bad(f"has {size} bytes, wanted at least the 8 of a header's length")
        length = int.from_bytes(mapping[:8], "little")
        if length > MAX_HEADER:
            raise self.bad(f"claims a header of {length:,} bytes, wanted at most {MAX_HEADER:,}")
        if length > size - 8:
            raise self.bad(f"claims a header of {length:,} bytes, but has {size - 8:,} after the length")
        header = mapping[8 : 8 + length]
        if header[:1] != b"{":
            raise self.bad(f"the header begins with {header[:1]!r}, wanted an opening brace")
        fields = parse_json(header, f"{self.path}: the header")
        metadata = self.metadata(fields.pop("__metadata__", {}))
        entries = [self.entry(name, value) for name, value in fields.items()]
        self.check_places(entries, size - 8 - length)
        data = np.frombuffer(mapping, np.uint8)[8 + length :]
        tensors = [Tensor(e.name, e.dtype, e.shape, data[e.begin : e.end]) for e in entries]
        return {tensor.name: tensor for tensor in tensors}, metadata

    def metadata(self, value: object) -> dict[str, str]:
        if value is None:  # the reference implementation reads null as absent
            return {}
        if not isinstance(value, dict):
            raise self.bad("__metadata__ is not an object of texts")
        for key, text in value.items():
            if not isinstance(text, str):
                raise self.bad(f"__metadata__ {quoted(key)} is {type(text).__name__}, wanted a text")
            if not (_encodable(key) and _encodable(text)):
                raise self.bad(f"__metadata__ {quoted(key)} has half a surrogate pair")
        return value

    def entry(self, name: str, value: object) -> _HeaderEntry:
        what = f"tensor {quoted(name)}"
        if not _encodable(name):
            raise self.bad(f"{what} has half a surrogate pair in its name")
        if not isinstance(value, dict):
            raise self.bad(f"{what} is {type(value).__name__}, wanted an object")
        if value.keys() != {"dtype", "shape", "data_offsets"}:
            fields = quoted(", ".join(sorted(value)))
            raise self.bad(f"{what} has the fields {fields}, wanted dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str):
            raise self.bad(f"{what} has a dtype that is not a text")
        if dtype not in DTYPE_BITS:
            known = ", ".join(DTYPE_BITS)
            raise Unsupported(f"{self.path}: {what} has dtype {quoted(dtype)}; known are {known}")
        if not _naturals(shape):
            raise self.bad(f"{what} has shape {quoted(str(shape))}, wanted a list of whole numbers")
        if len(shape) > MAX_DIMENSIONS:
            raise self.bad(f"{what} has {len(shape):,} dimensions, wanted at most {MAX_DIMENSIONS}")
        if not _naturals(offsets) or len(offsets) != 2:
            raise self.bad(f"{what} has data_offsets {quoted(str(offsets))}, wanted [begin, end]")
        if math.prod(max(1, n) for n in shape) >= 1 << 60:
            raise self.bad(f"{what} of shape {quoted(str(shape))} overflows")
        begin, end = offsets
        if begin > end:
            raise self.bad(f"{what} begins at {begin:,}, after its end at {end:,}")
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        if bits % 8:
            raise self.bad(f"{what} of {dtype} ends inside a byte")
        if bits // 8 != end - begin:
            raise self.bad(
                f"{what} of {dtype} and shape {shape} needs {bits // 8:,} bytes, but has {end - begin:,}"
            )
        return _HeaderEntry(name, dtype, tuple(shape), begin, end)

    def check_places(self, entries: list[_HeaderEntry], room: int) -> None:
        """Check that the tensors cover the data exactly once: no overlap, no gap, nothing after the last."""
        end, before = 0, "the beginning of the data"
        for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
            what = f"tensor {quoted(entry.name)}"
            if entry.end > room:
                raise self.bad(
                    f"{what} ends at {entry.end:,}, past the end of the data, which has {room:,} bytes: "
                    "the file is truncated or forged",
                    "fetch it again",
                )
            if entry.begin < end:
                raise self.bad(f"{what} at {entry.begin:,} overlaps {before}, which ends at {end:,}")
            if entry.begin > end:
                raise self.bad(f"{entry.begin - end:,} bytes between {before} and {what} belong to no tensor")
            end, before = entry.end, what
        if end < room:
            raise self.bad(f"{room - end:,} bytes after {before} belong to no tensor")


def _naturals(value: object) -> bool:
    """Return whether a JSON value is a list of integers >= 0 (true and 1.0 are not integers)."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
