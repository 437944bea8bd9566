"""Examples: the documents of one side, training or validation, as a sequence over the memory-mapped ids.

An example's ids are read on access. `pieces` are the parts of documents that one epoch learns from;
`packing.py` packs them into rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pophood.train.data.dataset.store import Store

SEARCHED = 8  # a long text is cut at a paragraph or line that ends in the last eighth of a piece, if any does


@dataclass(frozen=True, slots=True)
class Example:
    """One document with its loss mask."""

    ids: NDArray[np.int64]
    trained: NDArray[np.bool_]  # the model learns to predict ids[i]
    source: str  # "notes.jsonl:12"
    cut: int = 0  # ids cut off at the end


@dataclass(frozen=True, slots=True)
class Pieces:
    """Parts of documents, each of at most `length` positions.

    The inputs of a piece are ids[first : first + count], and its targets are one id further.
    """

    first: NDArray[np.int64]
    count: NDArray[np.int32]
    document: NDArray[np.int64]  # number of the example

    def __len__(self) -> int:
        return len(self.first)


class Examples(Sequence[Example]):
    """Documents in the order of the files, as in `examples[0].source == "notes.txt:1"`."""

    def __init__(
        self,
        store: Store,
        rows: NDArray[Any],
        chosen: NDArray[np.int64] | None = None,
        *,
        length: int = 1024,
        long: Literal["auto", "cut", "split"] = "auto",
        line_ends: NDArray[np.uint8] | None = None,
    ) -> None:
        """`rows` have the fields of DOCUMENT, and `chosen` the numbers of the rows to use (None: all).

        `line_ends[id]` is the number of line ends, at most 2, that a token ends with; it helps to cut long
        texts in good places.
        """
        self.store, self.length, self.long = store, length, long
        self._rows, self._chosen = rows, chosen
        self._line_ends = line_ends

    def __len__(self) -> int:
        return len(self._rows) if self._chosen is None else len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._row(index)
        start, end = int(row["start"]), int(row["end"])
        stop = end if self._splits(row["text"]) else min(end, start + self.length + 1)
        return self._example(row, start, stop, end - stop)

    def whole(self, index: int) -> Example:
        """Return an example together with the ids that are cut off; its `cut` still counts them."""
        row = self._row(index)
        start, end = int(row["start"]), int(row["end"])
        return self._example(row, start, end, self[index].cut)

    def source(self, index: int) -> str:
        """Return the file and line of an example, such as "notes.jsonl:12"."""
        return self._source(self._row(index))

    def fields(self, *names: str) -> tuple[NDArray[Any], ...]:
        """Return columns of DOCUMENT for these examples."""
        rows = self._rows
        return tuple(rows[name] if self._chosen is None else rows[name][self._chosen] for name in names)

    def with_length(self, length: int) -> Examples:
        """Return the same documents for rows of another length, without reading the files again."""
        return Examples(
            self.store, self._rows, self._chosen, length=length, long=self.long, line_ends=self._line_ends
        )

    @property
    def cut_documents(self) -> NDArray[np.bool_]:
        """A mask of the examples that lose learned ids at their end."""
        start, last, text = self.fields("start", "last", "text")
        return np.asarray((last - start > self.length) & ~self._splits(text))

    def pieces(self) -> Pieces:
        """Return the pieces of one epoch. Every learned id is the target of exactly one piece.

        A document that fits is one piece, up to its last learned id. A longer text becomes several; each
        starts at position 0 with the last id of the one before. A piece ends at the last blank line within
        the last eighth of `length`, else at a line end there, else at `length`. A longer chat is cut. Pieces
        with nothing to learn are left out.
        """
        start, end, first, last, text = self.fields("start", "end", "first", "last", "text")
        (learned,) = self.fields("learned")
        full = learned == end - start - 1
        count = np.minimum(last - start, self.length)
        several = (end - start > self.length + 1) & self._splits(text)
        whole = np.flatnonzero(~several & (first <= start + self.length) & (count > 0))
        parts: list[tuple[NDArray[Any], ...]] = [(start[whole], count[whole], whole)]
        parts += [
            self._split(int(start[n]), int(last[n]), int(n), bool(full[n])) for n in np.flatnonzero(several)
        ]
        firsts, counts, documents = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((firsts, documents))
        return Pieces(firsts[order], counts[order].astype(np.int32), documents[order].astype(np.int64))

    def _split(self, start: int, last: int, number: int, full: bool) -> tuple[NDArray[Any], ...]:
        parts = []
        while start < last:
            count = min(self.length, last - start)
            if count < last - start:
                count = self._good_cut(start, count)
            if full or self.store.trained(start + 1, start + count + 1).any():
                parts.append((start, count, number))
            start += count
        return tuple(np.array(parts, np.int64).reshape(-1, 3).T)

    def _good_cut(self, start: int, count: int) -> int:
        """Return the size of a piece whose last id, which starts the next piece, ends a paragraph or line."""
        if self._line_ends is None:
            return count
        low = count - count // SEARCHED
        ids = self.store.ids[start + low : start + count + 1]
        ends = self._line_ends[ids].astype(np.int64)
        ends[1:] += (ends[1:] == 1) & (ends[:-1] > 0)  # a line end after a line end is a blank line
        if not ends.any():
            return count
        return low + int(np.flatnonzero(ends == ends.max())[-1])

    def _splits(self, text: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return for each document whether it is split if it is long, given whether it is plain text."""
        return text if self.long == "auto" else np.full_like(text, self.long == "split")

    def _row(self, index: int) -> Any:
        index = range(len(self))[index]  # IndexError, and numbers from the end
        return self._rows[index if self._chosen is None else self._chosen[index]]

    def _example(self, row: Any, start: int, end: int, cut: int) -> Example:
        ids = np.array(self.store.ids[start:end], np.int64)
        trained = self.store.trained(start, end)
        trained[:1] = False  # it has no predecessor, also in a part of a document
        return Example(ids, trained, self._source(row), cut)

    def _source(self, row: Any) -> str:
        return f"{self.store.facts['files'][int(row['file'])]}:{int(row['line'])}"
