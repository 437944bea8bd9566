"""Writes safetensors: one file, one tensor at a time, with the same bytes for the same tensors.

Tensors are ordered as in the reference implementation (huggingface/safetensors, tensor.rs, `prepare`): wider
types first, then by name; the header is JSON without spaces, padded with spaces to a multiple of 8. So the
bytes equal those of the reference writer. A file is written under another name and renamed once it is
complete and on the disk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput, PophoodError
from pophood.formats.safetensors import MAX_HEADER
from pophood.system import atomic_write, disk_errors, disk_of, free_disk, sync_file

# From the widest to the narrowest, in the reference's order. NumPy has no bfloat16, so BF16 is uint16 bits.
DTYPES: dict[str, np.dtype[Any]] = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_RANK = {name: rank for rank, name in enumerate(DTYPES)}
WRITE_BYTES = 8 << 20  # bytes per call of `write`


@dataclass(frozen=True, slots=True)
class Pending:
    """A tensor that is computed when it is written: `Pending("F32", (2, 3), make)`."""

    dtype: str
    shape: tuple[int, ...]
    make: Callable[[], NDArray[Any]]


Tensors = Mapping[str, "tuple[str, NDArray[Any]] | Pending"]
Write = Callable[[bytes | memoryview], object]
Wrote = Callable[[str, memoryview], object]  # called with the name of a tensor and a piece of its bytes


def write_safetensors(
    target: str | PathLike[str] | BinaryIO,
    tensors: Tensors,
    metadata: Mapping[str, str] | None = None,
    *,
    wrote: Wrote | None = None,
) -> int:
    """Write (dtype, array) or Pending tensors to a path, atomically, or to an open file; return the bytes.

    Types are those of safetensors: "F32", "F16", "BF16" and "U16" (uint16), "I64"... `wrote` is called with
    every piece of every tensor. In both cases the file is synced to disk. Raises BadInput for an array that
    does not fit its type, PophoodError for a full disk, with the bytes needed and free.

    Example: `write_safetensors("a.safetensors", {"x": ("F32", np.zeros(2, np.float32))})`.
    """
    plan = _plan(tensors, metadata)
    if isinstance(target, str | PathLike):
        room(Path(target), plan.total)
        with disk_errors(Path(target), plan.total):
            atomic_write(target, lambda file: plan.write(file.write, wrote))
    else:
        with disk_errors(Path(str(target.name)), plan.total):
            plan.write(target.write, wrote)
            sync_file(target)
    return plan.total


def stream_safetensors(write: Write, tensors: Tensors) -> int:
    """Pass the bytes of a file to `write` (such as a hash's `update`) piece by piece; return their number.

    >>> import hashlib
    >>> stream_safetensors(hashlib.sha256().update, {"x": ("F32", np.zeros(2, np.float32))})
    72
    """
    plan = _plan(tensors)
    plan.write(write)
    return plan.total


def size_of(tensors: Tensors) -> int:
    """Return the bytes that the file will have; no tensor is computed."""
    return _plan(tensors).total


def room(path: Path, needed: int) -> None:
    """Raise PophoodError, with the bytes needed and free, for a file that does not fit on the disk."""
    free = free_disk(path)
    if needed > free:
        raise PophoodError(
            f"{path}: the disk is full: needed {needed:,} bytes, free {free:,} bytes on {disk_of(path)}:"
            " free some space there, or name a place on another disk"
        )


def nbytes(tensor: Pending) -> int:
    """Return the bytes of a tensor in the file."""
    return math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize


@dataclass(frozen=True, slots=True)
class _Plan:
    """A header, and the tensors in its order."""

    header: bytes
    tensors: dict[str, Pending]

    @property
    def total(self) -> int:
        return len(self.header) + sum(map(nbytes, self.tensors.values()))

    def write(self, write: Write, wrote: Wrote | None = None) -> None:
        write(self.header)
        for name, tensor in self.tensors.items():
            _write_tensor(write, name, tensor, wrote)


def _plan(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> _Plan:
    pending = _ordered(tensors)
    return _Plan(_header(pending, dict(metadata or {})), pending)


def _ordered(tensors: Tensors) -> dict[str, Pending]:
    pending: dict[str, Pending] = {}
    for name, value in tensors.items():
        tensor = value if isinstance(value, Pending) else _pending(*value)
        if tensor.dtype not in DTYPES:
            raise BadInput(
                f"tensor {name!r} has type {tensor.dtype!r}; safetensors are written as {', '.join(DTYPES)}"
            )
        pending[name] = tensor
    if "__metadata__" in pending:
        raise BadInput("a tensor cannot be called __metadata__: the format reserves that name")
    return dict(sorted(pending.items(), key=lambda item: (_RANK[item[1].dtype], item[0].encode())))


def _pending(dtype: str, values: NDArray[Any]) -> Pending:
    return Pending(dtype, values.shape, lambda: values)


def _header(tensors: dict[str, Pending], metadata: dict[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + nbytes(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise BadInput(f"the header would have {len(text):,} bytes; readers take {MAX_HEADER:,}: shorten it")
    return struct.pack("<Q", len(text)) + text


def _write_tensor(write: Write, name: str, tensor: Pending, wrote: Wrote | None) -> None:
    values = np.asarray(tensor.make())
    wanted = DTYPES[tensor.dtype]
    if values.shape != tensor.shape or values.dtype.newbyteorder("<") != wanted:
        raise BadInput(
            f"tensor {name!r} is {values.dtype} {values.shape}; wanted {wanted} {tensor.shape} for"
            f" {tensor.dtype}"
        )
    if not values.size:
        return
    data = np.ascontiguousarray(values, wanted).reshape(-1).view(np.uint8).data
    for start in range(0, len(data), WRITE_BYTES):
        piece = data[start : start + WRITE_BYTES]
        write(piece)
        if wrote is not None:
            wrote(name, piece)
