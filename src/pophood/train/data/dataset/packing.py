"""Order: which pieces of which documents stand in which row of which batch, by seed, epoch and index alone.

Rows are filled greedily: pieces are shuffled, taken a window at a time, and each goes, the longest first,
into the fullest row that still has room for it (best fit decreasing; Coffman et al. 1978). Documents of one
row do not see each other: they are numbered, their positions restart, and no target reaches into the next.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.train.data.dataset.batch import IGNORED, Batch
from pophood.train.data.dataset.examples import Examples, Pieces

WINDOW = 8192  # pieces that are packed together
_STEP = 16  # widths of batches


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one epoch: row r holds pieces[starts[r]:starts[r + 1]]."""

    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


class Order:
    """Batches of an epoch; nothing is remembered between them, so any (epoch, index) can be asked for.

        order = Order(data.train, batch_size=4, length=256, seed=42)
        batch = order.batch(epoch=0, index=7)

    Takes 20 bytes per piece, and 16 more per piece of the epoch that is in use.
    """

    def __init__(
        self, examples: Examples, batch_size: int, length: int, seed: int, *, shuffle: bool = True
    ) -> None:
        """`length`: positions of a row, at most the model's context; without `shuffle` every epoch is
        alike."""
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, got {batch_size}")
        self.examples = examples if examples.length == length else examples.with_length(length)
        self.batch_size, self.length, self.seed, self.shuffle = batch_size, length, seed, shuffle
        self._pieces: Pieces | None = None
        self._planned: tuple[int, Plan] | None = None

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Batches of an epoch; packing differs a little from one to the next."""
        return -(-len(self.plan(epoch)) // self.batch_size)

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch; BadInput for an index that the epoch does not have."""
        return self._batch(self.rows(epoch, index))

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """The numbers of the pieces in each row of a batch; BadInput as `batch`."""
        plan = self.plan(epoch)
        low = index * self.batch_size
        if not 0 <= low < len(plan):
            raise BadInput(f"epoch {epoch} has {self.batches_per_epoch(epoch)} batches, got index {index}")
        return [
            plan.pieces[plan.starts[row] : plan.starts[row + 1]]
            for row in range(low, min(low + self.batch_size, len(plan)))
        ]

    def fill(self, epoch: int = 0) -> float:
        """The share of the positions of full-length rows that hold something."""
        rows = len(self.plan(epoch))
        return float(self.pieces.count.sum() / (rows * self.length)) if rows else 0.0

    @property
    def pieces(self) -> Pieces:
        """All pieces, in the order of the documents."""
        if self._pieces is None:
            self._pieces = self.examples.pieces()
        return self._pieces

    def plan(self, epoch: int) -> Plan:
        """The rows of an epoch, made when it is first asked for."""
        epoch = epoch if self.shuffle else 0
        if self._planned is None or self._planned[0] != epoch:
            random = np.random.Generator(np.random.PCG64([self.seed % (1 << 64), epoch]))
            self._planned = (epoch, pack(self.pieces.count, self.length, random if self.shuffle else None))
        return self._planned[1]

    def _batch(self, rows: list[NDArray[np.int64]]) -> Batch:
        pieces, store = self.pieces, self.examples.store
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


class Fewer:
    """Batches of an order, spread evenly, of at most `positions`: watching must cost less than learning."""

    def __init__(self, order: Order, positions: int) -> None:
        self._order = order
        count = order.batches_per_epoch(0)
        most = max(1, positions // (order.batch_size * order.length))
        self._chosen = [i * count // min(count, most) for i in range(min(count, most))]

    @property
    def examples(self) -> Examples:
        """Those of the order."""
        return self._order.examples

    @property
    def pieces(self) -> Pieces:
        """Those of the order, in no chosen batch too."""
        return self._order.pieces

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """The numbers of the pieces in each row of a batch."""
        return self._order.rows(0, self._chosen[index])

    def batch(self, epoch: int, index: int) -> Batch:
        """One of the chosen batches."""
        return self._order.batch(0, self._chosen[index])

    def batches_per_epoch(self, epoch: int) -> int:
        """How many were chosen."""
        return len(self._chosen)


def pack(counts: NDArray[np.int32], length: int, random: np.random.Generator | None = None) -> Plan:
    """Rows of at most `length` positions for pieces of these counts, each piece in one of them.

    >>> plan = pack(np.array([5, 3, 4, 2], np.int32), length=8)
    >>> plan.pieces.tolist(), plan.starts.tolist()
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
    return Plan(np.concatenate(pieces), np.cumsum(np.concatenate(sizes)))


def _best_fit(order: NDArray[np.int64], counts: NDArray[np.int32], length: int) -> list[list[int]]:
    """Longest first, into the row with the least room that is enough; ties to the oldest row."""
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
