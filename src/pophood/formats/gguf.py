"""GGUF v2 and v3 (ggml's model files): metadata and tensor views. No writer; the keys have no meaning here.

    | "GGUF" | u32 version | u64 tensors | u64 keys |                              all numbers little-endian
    | keys:    string name | u32 value type | value |  ...
    | tensors: string name | u32 dimensions | u64 sizes, fastest first | u32 ggml type | u64 offset |  ...
    | padding to `general.alignment` (32 unless the key says otherwise) |
    | data: offsets count from here; every tensor starts on a multiple of the alignment |

    string: | u64 length | UTF-8 bytes |        array: | u32 element type | u64 count | elements |

The layout follows the specification (ggml, docs/gguf.md). Where it is vague, this reader refuses what
llama.cpp refuses. It also refuses bytes that belong to no tensor, so that a file has only one reading; zeros
after the last tensor are padding. No memory is allocated for a size from the file before that size is checked
against the bytes that are left.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile, Unsupported, quoted
from pophood.formats.parts import piece_advice
from pophood.formats.quant import BLOCKS
from pophood.formats.strings import read_strings
from pophood.formats.tensors import MappedFile, Tensor, mapped

# Limits far above every published model; they bound the Python objects that a hostile file can create.
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_STRINGS = 1 << 20  # in one array; the largest vocabularies and merge lists have about half as many
MAX_NUMBERS = 1 << 22  # in one array
MAX_NESTED = 4_096  # arrays inside one array
MAX_DEPTH = 4
MAX_KEY_BYTES = 65_535  # as in the specification
MAX_NAME_BYTES = 64  # of a tensor, as in the specification
MAX_TEXT_BYTES = 64 << 20  # of one string; some files hold a whole tokenizer.json in one
MAX_DIMENSIONS = 4  # as in ggml

STRING, ARRAY, BOOL = 8, 9, 7
_ARRAY_LIMITS = {STRING: ("strings", MAX_STRINGS), ARRAY: ("arrays in an array", MAX_NESTED)}
SCALARS: dict[int, np.dtype[np.generic]] = {
    **dict(enumerate(map(np.dtype, ("<u1", "<i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?")))),
    **dict(enumerate(map(np.dtype, ("<u8", "<i8", "<f8")), start=10)),
}

# enum ggml_type in ggml.h. Types outside quant.BLOCKS are refused by these names.
GGML_TYPES: dict[int, str] = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1", "Q4_2", "Q4_3", "Q5_0", "Q5_1", "Q8_0", "Q8_1"))),
    **dict(enumerate(("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), start=10)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S"), start=16)),
    **dict(enumerate(("IQ4_XS", "I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), start=23)),
    **dict(enumerate(("Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0", "TQ2_0"), start=31)),
    **dict(enumerate(("IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4", "Q1_0"), start=36)),
}


@dataclass(slots=True, eq=False, repr=False)
class GGUFFile(MappedFile):
    """An open GGUF file, or all parts of a split one (see gguf_split.py)."""

    version: int
    metadata: dict[str, object]  # int, float, bool, str; arrays: list[str], a NumPy array, a list of arrays


def open_gguf_file(path: str | PathLike[str]) -> GGUFFile:
    """Map one GGUF v2 or v3 file and read its metadata and tensor list; no weights are read.

    A part of a split model is opened by itself (`gguf_split.open_gguf` opens all parts). Raises BadFile for a
    file that breaks the format, Unsupported for tensor types that pophood does not decode and for big-endian
    files.
    """
    with mapped(path) as mapping:
        reader = _GGUFReader(Path(path), mapping)
        version, n_tensors, n_keys = reader.header()
        metadata = reader.keys(n_keys)
        tensors = reader.tensors(n_tensors, reader.alignment(metadata))
    return GGUFFile(Path(path), tensors, [mapping], version, metadata)


class _TensorInfo(NamedTuple):
    """One entry of the tensor list."""

    name: str
    shape: tuple[int, ...]  # rows first
    type: int
    offset: int


class _GGUFReader:
    """Reads a mapped file from start to end. Every read names its purpose, for error messages."""

    def __init__(self, path: Path, mapping: mmap.mmap) -> None:
        self.path = path
        self.bytes: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)
        self.buffer = memoryview(mapping)
        self.size = len(mapping)
        self.position = 0

    def bad(self, text: str, advice: str = "the file is damaged; fetch it again") -> BadFile:
        return BadFile(f"{self.path}: {text}: {advice}")

    def take(self, count: int, what: str) -> int:
        """Skip `count` bytes and return where they start; BadFile if the file is too short."""
        start, left = self.position, self.size - self.position
        if count > left:
            raise self.bad(
                f"{what} needs {count:,} bytes at offset {start:,}, but the file ends after {left:,}"
            )
        self.position = start + count
        return start

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.buffer, self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self.buffer, self.take(8, what))[0])

    def string(self, what: str, limit: int) -> str:
        length = self.u64(f"the length of {what}")
        if length > limit:
            raise self.bad(f"{what} claims {length:,} bytes, wanted at most {limit:,}")
        start = self.take(length, what)
        try:
            return str(self.buffer[start : start + length], "utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8 at its byte {error.start:,}") from None

    # Header and keys -----------------------------------------------------------------------------------

    def header(self) -> tuple[int, int, int]:
        """Read the version, the number of tensors and the number of keys."""
        magic = bytes(self.buffer[:4])
        if magic != b"GGUF":
            raise self.bad(f"begins with {magic!r}, wanted b'GGUF'", "name a .gguf file")
        self.take(4, "the magic")
        version = self.u32("the version")
        if version not in (2, 3):
            if version and version & 0xFFFF == 0:
                raise Unsupported(f"{self.path}: a big-endian GGUF file; pophood reads little-endian ones")
            if version == 0:
                raise self.bad("has version 0; versions begin at 1")
            raise Unsupported(f"{self.path}: GGUF version {version}; pophood reads 2 and 3: convert it again")
        n_tensors, n_keys = self.u64("the number of tensors"), self.u64("the number of keys")
        left = self.size - self.position
        # The smallest possible: a key of one letter with one byte; a tensor of one letter without dimensions.
        limits = ((n_keys, 14, MAX_KEYS, "keys"), (n_tensors, 25, MAX_TENSORS, "tensors"))
        for count, least, most, what in limits:
            if count > most:
                raise self.bad(f"claims {count:,} {what}, wanted at most {most:,}")
            if count * least > left:
                raise self.bad(f"claims {count:,} {what}, but only {left:,} bytes remain for them")
        return version, n_tensors, n_keys

    def keys(self, count: int) -> dict[str, object]:
        metadata: dict[str, object] = {}
        for index in range(count):
            key = self.string(f"the name of key {index}", MAX_KEY_BYTES)
            if not key:
                raise self.bad(f"key {index} has an empty name")
            if key in metadata:
                raise self.bad(f"the key {quoted(key)} occurs twice")
            metadata[key] = self.value(self.u32(f"the type of key {quoted(key)}"), f"key {quoted(key)}", 0)
        return metadata

    def value(self, kind: int, what: str, depth: int) -> object:
        """Read one metadata value of the given type."""
        if kind == STRING:
            return self.string(what, MAX_TEXT_BYTES)
        if kind == ARRAY:
            return self.array(what, depth)
        return self.numbers(kind, 1, what)[0].item()

    def numbers(self, kind: int, count: int, what: str) -> NDArray[np.generic]:
        """Read `count` numbers or booleans, copied out of the mapping."""
        if kind not in SCALARS:
            raise self.bad(f"{what} has value type {kind}; the format defines 0 to 12")
        dtype = SCALARS[kind]
        start = self.take(count * dtype.itemsize, what)
        stored = self.bytes[start : self.position]
        if kind == BOOL and count and stored.max() > 1:
            raise self.bad(f"{what} is a boolean with the value {stored.max()}, wanted 0 or 1")
        values = stored.copy().view(dtype)
        values.flags.writeable = False
        return values

    def array(self, what: str, depth: int) -> object:
        kind, count = self.u32(f"the element type of {what}"), self.u64(f"the length of {what}")
        if kind == ARRAY and depth + 1 >= MAX_DEPTH:
            raise self.bad(f"{what} nests arrays deeper than {MAX_DEPTH}")
        unit, most = _ARRAY_LIMITS.get(kind, ("numbers", MAX_NUMBERS))
        if count > most:
            raise self.bad(f"{what} claims {count:,} {unit}, wanted at most {most:,}")
        if kind == STRING:
            return self.strings(count, what)
        if kind != ARRAY:
            return self.numbers(kind, count, what)
        return [self.array(what, depth + 1) for _ in range(count)]

    def strings(self, count: int, what: str) -> list[str]:
        left = self.size - self.position
        if count * 8 > left:
            raise self.bad(f"{what} claims {count:,} strings in {left:,} remaining bytes")

        def one(index: int, position: int) -> tuple[str, int]:
            self.position = position
            return self.string(f"string {index:,} of {what}", MAX_TEXT_BYTES), self.position

        strings, self.position = read_strings(self.bytes, self.position, count, one)
        return strings

    def alignment(self, metadata: dict[str, object]) -> int:
        value = metadata.get("general.alignment", 32)
        if type(value) is not int or value < 1 or value & (value - 1):
            raise self.bad(f"general.alignment is {_shown(value)}, wanted a power of two")
        return value

    # Tensors --------------------------------------------------------------------------------------------

    def tensors(self, count: int, alignment: int) -> dict[str, Tensor]:
        entries = [self.entry(index) for index in range(count)]
        twice = [name for name, times in Counter(entry.name for entry in entries).items() if times > 1]
        if twice:
            raise self.bad(f"the tensor {quoted(twice[0])} occurs twice")
        self.refuse_types(entries)
        if not entries:
            return {}
        begin = _up(self.position, alignment)
        if begin > self.size:
            raise self.bad(f"the data should begin at {begin:,}, but the file has {self.size:,} bytes")
        lengths = [self.length(entry) for entry in entries]
        self.check_places(entries, lengths, self.size - begin, alignment)
        data = self.bytes[begin:]
        pairs = zip(entries, lengths, strict=True)
        views = [Tensor(e.name, GGML_TYPES[e.type], e.shape, data[e.offset : e.offset + n]) for e, n in pairs]
        return {tensor.name: tensor for tensor in views}

    def entry(self, index: int) -> _TensorInfo:
        name = self.string(f"the name of tensor {index}", MAX_NAME_BYTES)
        if not name:
            raise self.bad(f"tensor {index} has an empty name")
        what = f"tensor {quoted(name)}"
        dimensions = self.u32(f"the number of dimensions of {what}")
        if dimensions > MAX_DIMENSIONS:
            raise self.bad(f"{what} has {dimensions:,} dimensions, wanted at most {MAX_DIMENSIONS}")
        start = self.take(8 * dimensions + 12, f"the shape, type and place of {what}")
        *sizes, kind, offset = struct.unpack_from(f"<{dimensions}QIQ", self.buffer, start)
        for size in sizes:
            if size == 0:
                raise self.bad(f"{what} has a dimension of size 0")
            if size >= 1 << 63:
                raise self.bad(f"{what} has a dimension of {size:,}, which is negative as a signed number")
        return _TensorInfo(name, tuple(reversed(sizes)), kind, offset)

    def refuse_types(self, entries: list[_TensorInfo]) -> None:
        """Refuse tensors of types that are not decoded here, naming the first and their number."""
        refused = [entry for entry in entries if GGML_TYPES.get(entry.type) not in BLOCKS]
        if not refused:
            return
        first = refused[0]
        if first.type not in GGML_TYPES:
            raise self.bad(
                f"tensor {quoted(first.name)} has the unknown ggml type {first.type}",
                "fetch the file again, or use a newer pophood",
            )
        names = sorted({GGML_TYPES.get(entry.type, str(entry.type)) for entry in refused})
        others = f" (and {len(refused) - 1} more tensors)" if len(refused) > 1 else ""
        raise Unsupported(
            f"{self.path}: tensor {quoted(first.name)}{others} of type {', '.join(names)}; pophood decodes "
            f"{', '.join(BLOCKS)}: take a file of the same model in one of these (Q8_0 and Q4_K_M are common)"
        )

    def length(self, entry: _TensorInfo) -> int:
        """Return the bytes of a tensor, from its shape and type."""
        layout = BLOCKS[GGML_TYPES[entry.type]]
        what = f"tensor {quoted(entry.name)}"
        values = math.prod(entry.shape)
        if values >= 1 << 63:
            raise self.bad(f"{what} of shape {entry.shape} overflows: {values:.3g} values")
        row = entry.shape[-1] if entry.shape else 1
        if row % layout.elements:
            raise self.bad(
                f"{what} has rows of {row:,} values, wanted a multiple of {layout.elements} for {layout.name}"
            )
        return values // layout.elements * layout.bytes

    def check_places(self, entries: list[_TensorInfo], lengths: list[int], room: int, alignment: int) -> None:
        """Check that tensors are aligned and inside the data, without overlaps or gaps other than padding."""
        end, before = 0, "the beginning of the data"
        for entry, length in sorted(zip(entries, lengths, strict=True), key=lambda pair: pair[0].offset):
            what = f"tensor {quoted(entry.name)}"
            if entry.offset % alignment:
                raise self.bad(
                    f"{what} is at offset {entry.offset:,}, which is not a multiple of {alignment}"
                )
            if entry.offset + length > room:
                raise self.bad(
                    f"{what} of {length:,} bytes at offset {entry.offset:,} reaches past the end of the "
                    f"data, which has {room:,} bytes: the file is truncated or forged",
                    piece_advice(self.path.name) or "fetch it again",
                )
            if entry.offset < end:
                raise self.bad(f"{what} at offset {entry.offset:,} overlaps {before}, which ends at {end:,}")
            if entry.offset > _up(end, alignment):
                hole = entry.offset - end
                raise self.bad(f"{hole:,} bytes between {before} and {what} belong to no tensor")
            end, before = entry.offset + length, what
        after = self.bytes[self.size - room + _up(end, alignment) :]
        if any(after[start : start + (1 << 20)].any() for start in range(0, after.size, 1 << 20)):
            raise self.bad(f"{room - end:,} bytes after the last tensor, {before}, belong to no tensor")


_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


def _shown(value: object) -> str:
    """Show a metadata value in an error: a number as itself, anything else by its type."""
    return f"{value:,}" if type(value) is int else f"a {type(value).__name__}"


def _up(value: int, alignment: int) -> int:
    """Round up to a multiple of `alignment`."""
    return -(-value // alignment) * alignment
