"""Builds GGUF files byte by byte, including ones that ggml's own writer would refuse to write."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from pophood.formats.quant import BLOCKS
from tests.attacks.mutate import Seed, Writer

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B"} | {
    U64: "Q",
    I64: "q",
    F64: "d",
}
TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "BF16": 30} | {
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
    "IQ4_NL": 20,
    "IQ4_XS": 23,
}


class Key(NamedTuple):
    """A metadata key.

    An array's value is (element type, elements); `claimed` is a false number of elements.
    """

    name: str | bytes
    type: int
    value: Any
    claimed: int | None = None


class Info(NamedTuple):
    """An entry of the tensor list: sizes fastest first, and ggml's number of the type."""

    name: str | bytes
    sizes: Sequence[int]
    type: int
    offset: int
    dimensions: int | None = None  # a lie about their number


def gguf(
    keys: Sequence[Key] = (),
    infos: Sequence[Info] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    n_tensors: int | None = None,
    n_keys: int | None = None,
    alignment: int = 32,
    name: str = "gguf",
) -> Seed:
    """Build a file as described, right or wrong."""
    out = Writer().put(magic, "text").u32(version)
    out.u64(len(infos) if n_tensors is None else n_tensors).u64(len(keys) if n_keys is None else n_keys)
    for key in keys:
        out.text(key.name).u32(key.type)
        _value(out, key.type, key.value, key.claimed)
    for info in infos:
        out.text(info.name).u32(len(info.sizes) if info.dimensions is None else info.dimensions)
        for size in info.sizes:
            out.u64(size)
        out.u32(info.type).u64(info.offset)
    if infos:
        out.put(bytes(-len(out.data) % alignment), "data").put(data, "data")
    return out.seed(name)


def _value(out: Writer, kind: int, value: Any, count: int | None = None) -> None:
    if kind == STRING:
        out.text(value)
    elif kind == ARRAY:
        element, elements = value
        out.u32(element).u64(len(elements) if count is None else count)
        for item in elements:
            _value(out, element, item)
    elif kind in FORMATS and not isinstance(value, bytes):
        out.put(struct.pack("<" + FORMATS[kind], value), "number")
    else:
        out.put(value, "data")


def placed(
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]], alignment: int = 32
) -> tuple[list[Info], bytes]:
    """Lay out tensors (name, type, shape rows first, bytes) with padding.

    Return their entries and the data.
    """
    infos, data = [], b""
    for name, kind, shape, content in tensors:
        data += bytes(-len(data) % alignment)
        infos.append(Info(name, list(reversed(shape)), TYPES[kind], len(data)))
        data += content
    return infos, data + bytes(-len(data) % alignment)


def nbytes(kind: str, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor."""
    values = 1
    for size in shape:
        values *= size
    return values // BLOCKS[kind].elements * BLOCKS[kind].bytes
