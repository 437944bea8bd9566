"""The trunk: what the blocks below the lowest one that learns make of the data, computed once and kept.

They never change, and documents in a row do not see each other, so the states of a piece (`Examples.pieces`)
below block k are the same in every epoch, in whichever row it stands. Each state is computed as the batch of
epoch 0 that has its piece computes it, later too and when what was kept is lost: its bits depend on the data
and the settings alone. Only pieces beyond the limit are computed where they are met, each time.

A trunk runs without dropout: with it there would be no fixed states. Bytes on the disk: `states.py`.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pophood.errors import PophoodError
from pophood.train.data.dataset.batch import Batch
from pophood.train.data.dataset.examples import Examples, Pieces
from pophood.train.loop.chunk_store import Bytes, KeptRows
from pophood.train.loop.step import Tensors
from pophood.train.model.attention import spans_of
from pophood.train.model.transformer import Model
from pophood.train.run.plan import gib
from pophood.train.settings import TrainSettings


class Laid(Protocol):
    """Batches whose pieces are known: `data.PackedSampler` is one."""

    @property
    def examples(self) -> Examples:
        """Where the pieces lie."""

    @property
    def pieces(self) -> Pieces:
        """All pieces, those of no batch too."""

    def rows(self, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """The numbers of the pieces in each row of a batch."""

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch of rows."""

    def batches_per_epoch(self, epoch: int) -> int:
        """How many there are."""


class Trunk:
    """The states below block `first` for the pieces of one side; `tensors(batch)` has them in it.

    Before `open`, and without it, nothing is kept and every state computed. Takes 12 bytes per piece.
    """

    def __init__(self, model: Model, order: Laid, first: int, limit: int) -> None:
        """`limit`: bytes to keep at most."""
        self.model, self.first = model, first
        self.pieces = order.pieces
        self._order = copy.copy(order)  # which plans epoch 0 while the other plans the epoch that is on
        chunks = [np.concatenate(order.rows(0, i)) for i in range(order.batches_per_epoch(0))]
        self._chunk = np.full(len(self.pieces), -1, np.int32)  # of a piece: its batch in epoch 0
        self._row = np.zeros(len(self.pieces), np.int64)  # and its first row among all rows
        sizes = np.zeros(len(chunks) + 1, np.int64)
        for number, chunk in enumerate(chunks):
            counts = self.pieces.count[chunk]
            self._chunk[chunk] = number
            self._row[chunk] = sizes[number] + np.cumsum(counts) - counts
            sizes[number + 1] = sizes[number] + counts.sum()
        self._starts = sizes
        self.dtype = self._below(
            *(torch.zeros((1, 1), dtype=torch.int64),) * 2, np.zeros((1, 1), np.int32)
        ).dtype
        self.row_bytes = model.config.n_embd * self.dtype.itemsize
        self.chunks = int(np.searchsorted(sizes * self.row_bytes, limit, side="right")) - 1  # that are kept
        self._kept: KeptRows | None = None

    @property
    def share(self) -> float:
        """The share of the states that is kept, 0 to 1."""
        return self.bytes / self.needed if self.needed else 1.0

    @property
    def needed(self) -> int:
        """Bytes of all states."""
        return int(self._starts[-1]) * self.row_bytes

    @property
    def bytes(self) -> int:
        """Bytes of those that are kept."""
        return int(self._starts[self.chunks]) * self.row_bytes

    def open(self, folder: Path, name: str, announce: Callable[[str], object]) -> None:
        """Keep the states in a folder, and use those that are there already; what goes wrong is announced."""
        try:
            self._kept = KeptRows(
                folder, name, self._key(), self._starts[: self.chunks + 1], self.row_bytes, announce
            )
        except (PophoodError, OSError) as error:
            announce(f"the states below block {self.first} are not kept, but computed each time: {error}")
            self.chunks = 0

    def close(self) -> None:
        """Let go of the files."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def tensors(self, batch: Batch) -> Tensors:
        """The batch with its states."""
        return Tensors.of(batch)._replace(states=self.states(batch), first=self.first)

    def states(self, batch: Batch) -> torch.Tensor:
        """The stream [B, T, C] before block `first`; zero where nothing stands."""
        rows, length = batch.tokens.shape
        found = np.zeros((rows * length, self.row_bytes), np.uint8)
        places = _starts_of(batch.documents)
        pieces = np.array(batch.pieces, np.int64)
        of_chunk = self._chunk[pieces]
        beyond: list[int] = []
        for chunk in np.unique(of_chunk).tolist():
            members = np.flatnonzero(of_chunk == chunk).tolist()
            if self._is_beyond(chunk):
                beyond += members
                continue
            values = self._chunk_of(chunk, pieces[members])
            for member, value in zip(members, values, strict=True):
                found[places[member] : places[member] + len(value)] = value
        if beyond:
            beyond.sort()
            self._compute_pieces(found, batch, [(places[m], self.pieces.count[pieces[m]]) for m in beyond])
        return torch.from_numpy(found).view(self.dtype).view(rows, length, -1)

    # ---- inside ----

    def _is_beyond(self, chunk: int) -> bool:
        """Whether a chunk is none that is kept: its pieces are computed where they are met."""
        if not 0 <= chunk < self.chunks:
            return True
        return self._kept is not None and self._kept.full and not self._kept.has(chunk)

    def _chunk_of(self, chunk: int, pieces: NDArray[np.int64]) -> list[Bytes]:
        """The rows of some pieces of one chunk, from the disk or from the model."""
        if self._kept is not None and self._kept.has(chunk):
            values = [self._kept.read(int(self._row[p]), int(self.pieces.count[p])) for p in pieces]
            if all(value is not None for value in values):
                return values  # type: ignore[return-value]
        batch = self._order.batch(0, chunk)
        states = _bytes_of(self._below(*_ids_of(batch), batch.documents)).reshape(-1, self.row_bytes)
        states = states[batch.documents.flatten() >= 0]
        if self._kept is not None:
            self._kept.write(chunk, states)
        starts = self._row[pieces] - self._starts[chunk]
        return [states[s : s + self.pieces.count[p]] for s, p in zip(starts, pieces, strict=True)]

    def _compute_pieces(self, found: Bytes, batch: Batch, places: list[tuple[int, int]]) -> None:
        """Compute some documents of a batch, side by side in one row, and put them at their places."""
        chosen = np.concatenate([np.arange(start, start + count) for start, count in places])
        documents = np.concatenate([np.full(count, i) for i, (_, count) in enumerate(places)])
        tokens, positions = (ids.flatten()[chosen][None] for ids in _ids_of(batch))
        found[chosen] = _bytes_of(self._below(tokens, positions, documents[None])).reshape(len(chosen), -1)

    @torch.no_grad()
    def _below(
        self, tokens: torch.Tensor, positions: torch.Tensor, documents: NDArray[np.int32]
    ) -> torch.Tensor:
        """The stream before block `first`, without dropout."""
        model, was = self.model, self.model.training
        model.eval()
        try:
            x = model.embed(tokens, positions)
            return model.from_block(x, positions, spans_of(documents), last=self.first)
        finally:
            model.train(was)

    def _key(self) -> str:
        """What the states depend on: the weights below, the ids, where each batch of epoch 0 has them."""
        hashed = hashlib.blake2b(digest_size=16)
        hashed.update(repr((self.model.config, self.first, self.dtype, self._starts.tolist())).encode())
        below = ("embed.", *(f"blocks.{i}." for i in range(self.first)))
        for name, parameter in self.model.named_parameters():
            if name.startswith(below):
                hashed.update(name.encode())
                hashed.update(_bytes_of(parameter.detach()).data)
        ids = self._order.examples.store.ids
        for array in (self.pieces.first, self.pieces.count, self._chunk, self._row, ids):
            hashed.update(np.ascontiguousarray(array).view(np.uint8).data)
        return hashed.hexdigest()


class Trunks:
    """Those of a run, which share one limit; what is to be said about them is in `remarks`."""

    def __init__(self, train: Trunk, validation: Trunk | None) -> None:
        self.train, self.validation = train, validation
        self.remarks: list[str] = []
        self._folder: Path | None = None

    @classmethod
    def of(cls, model: Model, train: Laid, validation: Laid | None, settings: TrainSettings) -> Trunks | None:
        """Of a model whose lowest blocks are frozen; else, and where nothing may be kept, None."""
        first, limit = lowest_trained(model), int((settings.cache_limit or 0) * 2**30)
        if first == 0 or limit <= 0:
            return None
        held = None if validation is None else Trunk(model, validation, first, limit)
        return cls(Trunk(model, train, first, limit - (held.bytes if held else 0)), held)

    def open(self, folder: Path, *, again: bool) -> None:
        """Keep states in a folder: those of validation always, the others if they are needed `again`."""
        train, say, self._folder = self.train, self.remarks.append, folder
        if self.validation is not None:
            self.validation.open(folder, "validation", say)
        if not again:
            return
        say(
            f"what is below block {train.first} does not learn: what it makes of the data is kept in {folder}"
            f" ({gib(train.bytes)}), and computed in the first epoch alone"
        )
        if train.share < 1:
            say(
                f"that is {train.share:.0%} of it, and the rest is computed each time: --cache-limit"
                f" {self.needed / 2**30:.1f} keeps all"
            )
        if any(module.p for module in train.model.modules() if isinstance(module, torch.nn.Dropout)):
            say("dropout is left out there, or nothing could be kept: --no-cache gives it back")
        train.open(folder, "train", say)

    @property
    def bytes(self) -> int:
        """What will be on the disk."""
        return self.train.bytes + (self.validation.bytes if self.validation else 0)

    @property
    def needed(self) -> int:
        """What it would be without a limit."""
        held = self.validation
        return self.train.needed + (held.needed if held else 0)

    def close(self) -> None:
        """Let go of the files, which stay for a run that goes on."""
        self.train.close()
        if self.validation is not None:
            self.validation.close()

    def remove(self) -> None:
        """Remove what was kept."""
        self.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def lowest_trained(model: Model) -> int:
    """The number of the lowest block with something that learns; 0 where the embeddings learn too."""
    if any(parameter.requires_grad for parameter in model.embed.parameters()):
        return 0
    learns = (any(p.requires_grad for p in block.parameters()) for block in model.blocks)
    return next((i for i, learning in enumerate(learns) if learning), 0)


def _starts_of(documents: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where each document begins in the flattened batch."""
    rows, length = documents.shape
    before = np.full((rows, length), -1, np.int32)
    before[:, 1:] = documents[:, :-1]
    return np.flatnonzero((documents >= 0) & (documents != before))


def _ids_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    flat: Bytes = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return flat
