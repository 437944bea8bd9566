"""Tensor: one named, typed and shaped piece of a mapped file; MappedFile: an open file with its tensors.

Nothing is copied until values are requested.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pophood.errors import Unsupported, quoted
from pophood.formats.quant import BLOCKS, decode, first_nonfinite
from pophood.system import map_file


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a file, its shape in NumPy's order: `Tensor("wte", "F32", (50257, 768), data)`."""

    name: str
    type: str  # as the format spells it: "F32" "F16" "BF16" "Q8_0" "Q4_1"; "I64" and others cannot be decoded
    shape: tuple[int, ...]
    data: NDArray[np.uint8] = field(repr=False)  # [nbytes], a read-only view of the mapped file

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.data.nbytes

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def values(self) -> NDArray[Any]:
        """Return the values in the shape of the tensor, in the file's own type if NumPy has it.

        F32 is a float32 view, F16 a float16 view, and BF16 a uint16 view of the raw bits (NumPy has no
        bfloat16); a quantised type is decoded to a new float32 array. A view is read-only and keeps the file
        mapped. A tensor that is not aligned to its item size is copied. Raises Unsupported for other types.

        Example: `tensor.values()[464]` is the row of token 464.
        """
        if self.type in _VIEWS:
            return aligned(self.data.view(_VIEWS[self.type])).reshape(self.shape)
        return self.decode()

    def decode(self) -> NDArray[np.float32]:
        """Return the values as float32 in the shape of the tensor.

        F32 is a view, as in `values`; every other type gives a new array. Raises Unsupported as `values`
        does.
        """
        if self.type not in BLOCKS:
            raise Unsupported(
                f"tensor {quoted(self.name)} holds {self.type}: pophood computes with {', '.join(BLOCKS)}: "
                "use a model in one of these types"
            )
        return decode(self.type, self.data, self.size).reshape(self.shape)

    @property
    def mapping(self) -> mmap.mmap | None:
        """The mapped file that the tensor is a part of, if it is."""
        whole = self.data
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        base: object = whole.base
        mapping = base.obj if isinstance(base, memoryview) else None
        return mapping if isinstance(mapping, mmap.mmap) else None

    def nonfinite(self) -> tuple[int, ...] | None:
        """Return the index of the first NaN or infinite value, or None; quantised types are checked by scale.

        Example: `(464, 12)` for a poisoned `wte.weight[464, 12]`. Raises Unsupported as `values` does.
        """
        if self.type not in BLOCKS:
            self.decode()
        flat = first_nonfinite(self.type, self.data)
        return None if flat is None else tuple(int(i) for i in np.unravel_index(flat, self.shape))


_VIEWS: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array itself, or a read-only copy if it is not aligned to its item size.

    A safetensors header of odd length misaligns every tensor of the file.
    """
    if array.flags.aligned:
        return array
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@dataclass(slots=True, eq=False, repr=False)
class MappedFile:
    """An open file of tensors, or several that hold one model; leaving a `with` closes it.

    Values of tensors stay valid after `close`, for as long as they are referenced.
    """

    path: Path
    tensors: dict[str, Tensor]
    mappings: list[mmap.mmap]

    def close(self) -> None:
        """Drop the tensors and unmap the files (as soon as the last array that views them is gone)."""
        self.tensors = {}
        for mapping in self.mappings:
            with suppress(BufferError):
                mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def mapped(path: str | PathLike[str]) -> Iterator[mmap.mmap]:
    """Map a file for the caller to keep; an error in the body of the `with` unmaps it."""
    mapping = map_file(path)
    try:
        yield mapping
    except BaseException:
        with suppress(BufferError):
            mapping.close()
        raise
