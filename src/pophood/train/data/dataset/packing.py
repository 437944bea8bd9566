"""The batch sampler: packs pieces of documents into rows and batches, by seed, epoch and index alone.

Pieces are shuffled and packed a window at a time: each piece, the longest first, goes into the fullest row
that still has room for it (best fit decreasing; Coffman et al. 1978). Documents in one row do not attend to
each other: they are numbered, their positions restart, and no target crosses from one to the next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.train.data.dataset.examples import Examples, Pieces

IGNORED = -100  # the target where nothing is learned, as in PyTorch
WINDOW = 8192  # pieces that are packed together
_STEP = 16  # the width of a batch is a multiple of this


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


class Batches(Protocol):
    """A source of batches, such as the packed sampler; an (epoch, index) always gives the same batch."""

    def batch(self, epoch: int, index: int) -> Batch:
        """Return one batch of rows."""

    def batches_per_epoch(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""


@dataclass(frozen=True, slots=True)
class EpochPacking:
    """The rows of one epoch: row r holds pieces[starts[r]:starts[r + 1]]."""

    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


class PackedSampler:
    """A batch sampler over packed rows. It has no state between batches: any (epoch, index) may be requested.

        sampler = PackedSampler(data.train, batch_size=4, length=256, seed=42)
        batch = sampler.batch(epoch=0, index=7)

    It takes 20 bytes per piece, and 16 more per piece for the packing of the current epoch.
    """

    def __init__(
        self, examples: Examples, batch_size: int, length: int, seed: int, *, shuffle: bool = True
    ) -> None:
        """`length`: positions per row, at most the model's context. Without `shuffle` epochs are equal."""
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}")
        self.examples = examples if examples.length == length else examples.with_length(length)
        self.batch_size, self.length, self.seed, self.shuffle = batch_size, length, seed, shuffle
        self._packed: tuple[int, EpochPacking] | None = None

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Return the number of batches in an epoch, which differs a little between epochs."""
        return -(-len(self.packing(epoch)) // self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """Return one batch. Raises BadInput for an index that the epoch does not have."""
        rows, pieces, store = self.rows(epoch, index), self.pieces, self.examples.store
        longest = max(int(pieces.count[row].sum()) for row in rows)
        shape = (len(rows), min(self.length, -(-longest // _STEP) * _STEP))
        tokens = np.zeros(shape, np.int64)
        targets = np.full(shape, IGNORED, np.int64)
        positions = np.zeros(shape, np.int64)
        documents = np.full(shape, -1, np.int32)
        sources = []
        for number, row in enumerate(rows):
            at = 0
            for document, piece in enumerate(row):
                first, count = int(pieces.first[piece]), int(pieces.count[piece])
                ids = np.asarray(store.ids[first : first + count + 1], np.int64)
                place = slice(at, at + count)
                tokens[number, place] = ids[:-1]
                learned = store.trained(first + 1, first + count + 1)
                targets[number, place] = np.where(learned, ids[1:], IGNORED)
                positions[number, place] = np.arange(count)
                documents[number, place] = document
                sources.append(self.examples.source(int(pieces.document[piece])))
                at += count
        numbers = tuple(int(piece) for row in rows for piece in row)
        return Batch(tokens, targets, positions, documents, tuple(sources), numbers)

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """Return the numbers of the pieces in each row of a batch. Raises BadInput as `batch` does."""
        packing = self.packing(epoch)
        low = index * self.batch_size
        if not 0 <= low < len(packing):
            raise BadInput(f"epoch {epoch} has {self.batches_per_epoch(epoch)} batches, got index {index}")
        return [
            packing.pieces[packing.starts[row] : packing.starts[row + 1]]
            for row in range(low, min(low + self.batch_size, len(packing)))
        ]

    def fill(self, epoch: int = 0) -> float:
        """Return the share of positions that are not padding, if every row has full length."""
        rows = len(self.packing(epoch))
        return float(self.pieces.count.sum() / (rows * self.length)) if rows else 0.0

    @cached_property
    def pieces(self) -> Pieces:
        """All pieces, in the order of the documents."""
        return self.examples.pieces()

    def packing(self, epoch: int) -> EpochPacking:
        """Return the rows of an epoch. Only those of the latest epoch are kept."""
        epoch = epoch if self.shuffle else 0
        if self._packed is None or self._packed[0] != epoch:
            random = np.random.Generator(np.random.PCG64([self.seed % (1 << 64), epoch]))
            self._packed = (epoch, pack(self.pieces.count, self.length, random if self.shuffle else None))
        return self._packed[1]


class SampledBatches(PackedSampler):
    """A subset of the batches of one epoch, spread evenly, so that validation stays cheap."""

    def __init__(self, examples: Examples, batch_size: int, length: int, seed: int, positions: int) -> None:
        """`positions`: the most to select, but at least one batch is selected."""
        super().__init__(examples, batch_size, length, seed, shuffle=False)
        total = super().batches_per_epoch()
        count = min(total, max(1, positions // (batch_size * length)))
        self._chosen = [i * total // count for i in range(count)]

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Return the number of selected batches, the same in every epoch."""
        return len(self._chosen)

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """Return the numbers of the pieces in each row of a selected batch."""
        return super().rows(0, self._chosen[index])


def pack(counts: NDArray[np.int32], length: int, random: np.random.Generator | None = None) -> EpochPacking:
    """Pack pieces of these sizes into rows of at most `length` positions.

    >>> packing = pack(np.array([5, 3, 4, 2], np.int32), length=8)
    >>> packing.pieces.tolist(), packing.starts.tolist()
    ([0, 1, 2, 3], [0, 2, 4])
    """
    order = np.arange(len(counts)) if random is None else random.permutation(len(counts))
    pieces, sizes = [np.zeros(0, np.int64)], [np.zeros(1, np.int64)]
    for low in range(0, len(order), WINDOW):
        rows = _best_fit(order[low : low + WINDOW], counts, length)
        if random is not None:
            rows = [rows[i] for i in random.permutation(len(rows))]
        pieces.append(np.array([piece for row in rows for piece in row], np.int64))
        sizes.append(np.array([len(row) for row in rows], np.int64))
    return EpochPacking(np.concatenate(pieces), np.cumsum(np.concatenate(sizes)))


def _best_fit(order: NDArray[np.int64], counts: NDArray[np.int32], length: int) -> list[list[int]]:
    """Put each piece, the longest first, into the fullest row that has room for it; ties go to the oldest."""
    sizes = counts[order]
    by_size = np.argsort(-sizes, kind="stable")
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free positions, row), sorted
    for piece, size in zip(order[by_size].tolist(), sizes[by_size].tolist(), strict=True):
        at = bisect_left(room, (size, -1))
        if at < len(room):
            free, row = room.pop(at)
            rows[row].append(piece)
        else:
            free, row = length, len(rows)
            rows.append([piece])
        if free > size:
            insort(room, (free - size, row))
    return rows
