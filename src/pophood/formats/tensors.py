"""Tensor: one named, typed, shaped piece of a mapped file. It copies nothing until values are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.errors import Unsupported
from pophood.formats.quant import BLOCKS, decode, first_nonfinite
from pophood.formats.quoting import quoted


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a file, rows first as NumPy has it: `Tensor("wte", "F32", (50257, 768), data)`."""

    name: str
    type: str  # as the format spells it: "F32" "F16" "BF16" "Q8_0" "Q4_1", also "I64" "F8_E4M3" (listed only)
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
        """The values in the shape of the tensor, as the file has them wherever NumPy can say so.

        F32 is a float32 view, F16 a float16 view, BF16 a uint16 view of the raw bits (NumPy has no
        bfloat16); a quantised type is decoded to a new float32 array. A view is read-only and keeps the
        file mapped; a tensor that does not start on a multiple of its item size is copied. Raises
        Unsupported for other types.

        Example: `tensor.values()[464]` is the row of token 464.
        """
        if self.type in _VIEWS:
            return aligned(self.data.view(_VIEWS[self.type])).reshape(self.shape)
        return self.decode()

    def decode(self) -> NDArray[np.float32]:
        """The values as float32 in the shape of the tensor, whatever the file's type.

        F32 is a view as in `values`, everything else a new array. Raises Unsupported as `values` does.
        """
        if self.type not in BLOCKS:
            raise Unsupported(
                f"tensor {quoted(self.name)} holds {self.type}: pophood computes with {', '.join(BLOCKS)}; "
                "take the model in one of these types"
            )
        return decode(self.type, self.data, self.size).reshape(self.shape)

    def nonfinite(self) -> tuple[int, ...] | None:
        """The index of the first NaN or infinite value, or None; a quantised type is judged by its scales.

        Example: `(464, 12)` for a poisoned `wte.weight[464, 12]`. Raises Unsupported as `values` does.
        """
        if self.type not in BLOCKS:
            self.decode()
        flat = first_nonfinite(self.type, self.data)
        return None if flat is None else tuple(int(i) for i in np.unravel_index(flat, self.shape))


_VIEWS: dict[str, str] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def aligned(array: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a read-only copy if it starts between two multiples of its item size.

    A safetensors header of odd length moves every tensor of its file off its natural boundary.
    """
    if array.flags.aligned:
        return array
    copy = array.copy()
    copy.flags.writeable = False
    return copy
