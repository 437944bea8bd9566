"""Pooling: one vector of a whole prompt, of the rows after the final norm as it is read. (small: one class)

No other code of `generate` knows what the vectors are for; `/v1/embeddings` is.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pooling = Literal["mean", "last"]
Floats = NDArray[np.float32]


class Pool:
    """The pooled vector of a prompt as far as it has been read.

    "mean" adds the rows of all tokens up in float64, in their order, and divides by their number; "last" is
    the row of the last token. No bit depends on how many rows come at a time.
    """

    def __init__(self, kind: Pooling, width: int) -> None:
        self.kind = kind
        self._total = np.zeros(width, np.float64)
        self._rows = 0

    def add(self, rows: Floats) -> None:
        """Take the next rows, [n, C]."""
        for row in rows if self.kind == "mean" else rows[-1:]:
            self._total = self._total + row if self.kind == "mean" else row.astype(np.float64)
        self._rows += len(rows)

    @property
    def vector(self) -> Floats:
        """The pooled vector at length 1, [C]: divided in float64, and rounded once to f32."""
        return normalized(self._total / self._rows if self.kind == "mean" else self._total)


def normalized(vector: NDArray[np.float64]) -> Floats:
    """Return a vector at length 1, rounded to f32. The sum of squares is exact but for one rounding.

    >>> normalized(np.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    length = math.sqrt(math.fsum(np.square(vector).tolist()))
    unit: Floats = (vector / length if length else vector).astype(np.float32)
    return unit
