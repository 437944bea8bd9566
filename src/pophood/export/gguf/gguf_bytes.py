"""Writes GGUF v3: metadata, and tensors one at a time, with the same bytes for the same content.

`formats/gguf.py`, the reader, draws the layout. Tensors begin at multiples of 32 bytes.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.formats.gguf import ARRAY, BOOL, GGML_TYPES, MAX_NAME_BYTES, SCALARS, STRING
from pophood.formats.quant import BLOCKS
from pophood.formats.safetensors_write import WRITE_BYTES, room
from pophood.system import atomic_write, disk_errors

ALIGNMENT = 32
_CODES = {name: code for code, name in GGML_TYPES.items()}
_ARRAYS = {dtype: code for code, dtype in SCALARS.items()}
_UINT32, _INT32, _FLOAT32, _UINT64, _INT64 = 4, 5, 6, 10, 11


@dataclass(frozen=True, slots=True)
class EncodedTensor:
    """A tensor of a GGUF file; `make` returns its bytes, flat, when it is written."""

    name: str
    type: str  # "F32", "F16", "Q8_0"...
    shape: tuple[int, ...]  # rows first
    make: Callable[[], NDArray[np.uint8]]

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        layout = BLOCKS[self.type]
        return math.prod(self.shape) // layout.elements * layout.bytes


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[EncodedTensor],
    wrote: Callable[[str, memoryview], object] | None = None,
) -> None:
    """Write a GGUF file atomically; `wrote` is called with every piece of every tensor's bytes.

    Metadata values are texts, booleans, whole numbers (u32 if they fit), floats (f32), lists of texts, and
    NumPy arrays. Raises BadInput for values that the format cannot hold, PophoodError for a full disk.

    Example: `write_gguf(path, {"general.architecture": "gpt2"}, [])`.
    """
    head = b"".join(_header(metadata, tensors))
    head += bytes(-len(head) % ALIGNMENT)
    total = len(head) + sum(_up(tensor.nbytes) for tensor in tensors)

    def content(file: BinaryIO) -> None:
        file.write(head)
        for tensor in tensors:
            _write_tensor(file, tensor, wrote)

    room(path, total)
    with disk_errors(path, total):
        atomic_write(path, content)


def _write_tensor(
    file: BinaryIO, tensor: EncodedTensor, wrote: Callable[[str, memoryview], object] | None
) -> None:
    encoded = tensor.make()
    if encoded.dtype != np.uint8 or encoded.shape != (tensor.nbytes,):
        raise BadInput(
            f"tensor {tensor.name} of {tensor.type} {tensor.shape} needs {tensor.nbytes:,} bytes; got"
            f" {encoded.nbytes:,}"
        )
    data = encoded.data
    for start in range(0, len(data), WRITE_BYTES):
        piece = data[start : start + WRITE_BYTES]
        file.write(piece)
        if wrote is not None:
            wrote(tensor.name, piece)
    file.write(bytes(_up(tensor.nbytes) - tensor.nbytes))


def _header(metadata: Mapping[str, Any], tensors: Sequence[EncodedTensor]) -> list[bytes]:
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), *_value(key, value)]
    ends = itertools.accumulate((_up(tensor.nbytes) for tensor in tensors), initial=0)
    for tensor, offset in zip(tensors, ends, strict=False):
        if len(tensor.name.encode()) >= MAX_NAME_BYTES:
            raise BadInput(f"the tensor name {tensor.name!r} is too long: GGUF names have at most 63 bytes")
        if tensor.shape and tensor.shape[-1] % BLOCKS[tensor.type].elements:
            raise BadInput(
                f"tensor {tensor.name} has rows of {tensor.shape[-1]:,} values; {tensor.type} packs"
                f" {BLOCKS[tensor.type].elements} at a time: choose another type, such as f16"
            )
        sizes = tensor.shape[::-1]
        layout = f"<I{len(sizes)}QIQ"
        parts += [
            _text(tensor.name),
            struct.pack(layout, len(sizes), *sizes, _CODES[tensor.type], offset),
        ]
    return parts


def _value(key: str, value: Any) -> list[bytes]:
    match value:
        case str():
            return [struct.pack("<I", STRING), _text(value)]
        case bool():
            return [struct.pack("<I?", BOOL, value)]
        case int():
            for code, least, most in (
                (_UINT32, 0, 1 << 32),
                (_INT32, -(1 << 31), 0),
                (_UINT64, 0, 1 << 64),
                (_INT64, -(1 << 63), 0),
            ):
                if least <= value < most:
                    return [struct.pack("<I", code), np.array(value, SCALARS[code]).tobytes()]
        case float():
            return [struct.pack("<If", _FLOAT32, value)]
        case np.ndarray() if value.ndim == 1 and value.dtype.newbyteorder("<") in _ARRAYS:
            dtype = value.dtype.newbyteorder("<")
            return [struct.pack("<IIQ", ARRAY, _ARRAYS[dtype], len(value)), value.astype(dtype).tobytes()]
        case list() | tuple() if all(isinstance(item, str) for item in value):
            return [struct.pack("<IIQ", ARRAY, STRING, len(value)), *map(_text, value)]
    raise BadInput(f"the GGUF key {key} cannot hold a {type(value).__name__}")


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _up(value: int) -> int:
    return -(-value // ALIGNMENT) * ALIGNMENT
