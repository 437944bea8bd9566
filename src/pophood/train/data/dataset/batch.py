"""One batch of packed rows: ids, targets, positions, documents and their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pophood.train.data.dataset.examples import Examples, Pieces

IGNORED = -100  # the target where nothing is learned, as in PyTorch


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of T positions. A row has one or more documents, which do not attend to each other.

    `targets[b, t]` is the token after `tokens[b, t]`, or -100 if that is not learned (already shifted).
    Positions restart with every document; `documents` numbers them within their row, and -1 is padding. The
    last batch of an epoch may have fewer rows. T is the length of the longest row, rounded up to 16.
    """

    tokens: NDArray[np.int64]  # [B, T]
    targets: NDArray[np.int64]  # [B, T]
    positions: NDArray[np.int64]  # [B, T]
    documents: NDArray[np.int32]  # [B, T]
    sources: tuple[str, ...]  # "notes.txt:12" for every document, row by row
    pieces: tuple[int, ...] = ()  # the number of each document's piece in the examples

    @property
    def learned(self) -> int:
        """The number of targets that are learned."""
        return int(np.count_nonzero(self.targets != IGNORED))


class Batches(Protocol):
    """A source of batches, such as the packed sampler; an (epoch, index) always gives the same batch."""

    def batch(self, epoch: int, index: int) -> Batch:
        """Return one batch of rows."""

    def batches_per_epoch(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""


class PackedBatches(Batches, Protocol):
    """Batches that know which pieces are packed into each of their rows."""

    @property
    def examples(self) -> Examples:
        """The examples that the pieces are cut from."""

    @property
    def pieces(self) -> Pieces:
        """All pieces, including those outside the selected batches."""

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """Return the numbers of the pieces in each row of a batch."""
