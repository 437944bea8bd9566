"""One batch: rows of ids with what follows each, where documents begin, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # a target that is not learned


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T positions, each row one or more documents that do not see each other.

    `targets[b, t]` is what follows `tokens[b, t]`, or -100 where that is not learned: already shifted.
    Positions restart with every document; `documents` numbers them within their row, -1 is padding. The last
    batch of an epoch may have fewer rows, and T is never more than what the longest row needs (in steps of
    16).
    """

    tokens: NDArray[np.int64]  # [B, T]
    targets: NDArray[np.int64]  # [B, T]
    positions: NDArray[np.int64]  # [B, T]
    documents: NDArray[np.int32]  # [B, T]
    sources: tuple[str, ...]  # "notes.txt:12" of every document, row after row
    pieces: tuple[int, ...] = ()  # which piece of the examples each of these documents is

    @property
    def learned(self) -> int:
        """Targets that are learned."""
        return int(np.count_nonzero(self.targets != IGNORED))
