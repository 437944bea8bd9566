"""The activation cache: hidden states that enter the first trainable block.

Later epochs skip the frozen blocks below it.

Frozen blocks never change and documents in a row do not see each other. So the hidden states of a piece
(`Examples.pieces`) below block k are the same in every epoch, whichever row the piece is packed into. They
are always computed as part of the batch that has the piece in epoch 0, even if cached states are lost, so
their bits depend on the data and the settings alone. Only pieces beyond the size limit are computed where
they are met, every time.

The cached blocks run without dropout, which would change the states in each epoch. `chunk_store.py` is the
file format.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pophood.errors import PophoodError
from pophood.system import memory_text
from pophood.train.data.dataset.packing import Batch, PackedSampler
from pophood.train.loop.chunk_store import Bytes, ChunkStore
from pophood.train.model.attention import spans_of
from pophood.train.model.loss import BatchTensors, evaluating
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings


class ActivationCache:
    """The hidden states below block `first` for the training data or the validation data.

    Until `open` is called nothing is stored and every state is computed. Takes 12 bytes of memory per piece.
    """

    def __init__(self, model: Model, batches: PackedSampler, first: int, limit: int) -> None:
        """`limit`: the most bytes to store."""
        self.model, self.first = model, first
        self.pieces = batches.pieces
        # A copy keeps the packing of epoch 0 while the original holds that of a later epoch.
        self._batches = copy.copy(batches)
        chunks = [np.concatenate(batches.rows(0, i)) for i in range(batches.batches_per_epoch(0))]
        self._chunk = np.full(len(self.pieces), -1, np.int32)  # of each piece: its batch in epoch 0
        self._row = np.zeros(len(self.pieces), np.int64)  # of each piece: its first row among all rows
        starts = np.zeros(len(chunks) + 1, np.int64)
        for number, chunk in enumerate(chunks):
            counts = self.pieces.count[chunk]
            self._chunk[chunk] = number
            self._row[chunk] = starts[number] + np.cumsum(counts) - counts
            starts[number + 1] = starts[number] + counts.sum()
        self._starts = starts
        zero = torch.zeros((1, 1), dtype=torch.int64)
        self.dtype = self._run_frozen(zero, zero, np.zeros((1, 1), np.int32)).dtype
        self.row_bytes = model.config.n_embd * self.dtype.itemsize
        # The number of chunks within the limit.
        self.chunks = int(np.searchsorted(starts * self.row_bytes, limit, side="right")) - 1
        self._store: ChunkStore | None = None

    @property
    def share(self) -> float:
        """The share of the states that fits within the limit, 0 to 1."""
        return self.bytes / self.needed if self.needed else 1.0

    @property
    def needed(self) -> int:
        """Bytes of all states."""
        return int(self._starts[-1]) * self.row_bytes

    @property
    def bytes(self) -> int:
        """Bytes of the states within the limit."""
        return int(self._starts[self.chunks]) * self.row_bytes

    def open(self, folder: Path, name: str, announce: Callable[[str], object]) -> None:
        """Store states in a folder, and use those already there; `announce` is told of any problem."""
        try:
            starts = self._starts[: self.chunks + 1]
            self._store = ChunkStore(folder, name, self._key(), starts, self.row_bytes, announce)
        except (PophoodError, OSError) as error:
            announce(f"cannot cache the output of the frozen blocks, so every epoch runs them: {error}")
            self.chunks = 0

    def close(self) -> None:
        """Close the files."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def tensors(self, batch: Batch) -> BatchTensors:
        """Return the batch with its hidden states."""
        return BatchTensors.of(batch)._replace(states=self.states(batch), first=self.first)

    def states(self, batch: Batch) -> torch.Tensor:
        """Return the hidden states [B, T, C] before block `first`; zero in padding."""
        rows, length = batch.tokens.shape
        states = np.zeros((rows * length, self.row_bytes), np.uint8)
        starts = _document_starts(batch.documents)
        pieces = np.array(batch.pieces, np.int64)
        of_chunk = self._chunk[pieces]
        uncached: list[int] = []
        for chunk in np.unique(of_chunk).tolist():
            members = np.flatnonzero(of_chunk == chunk).tolist()
            if not self._is_cached(chunk):
                uncached += members
                continue
            values = self._pieces_of_chunk(chunk, pieces[members])
            for member, value in zip(members, values, strict=True):
                states[starts[member] : starts[member] + len(value)] = value
        if uncached:
            uncached.sort()
            spans = [(starts[member], self.pieces.count[pieces[member]]) for member in uncached]
            self._compute_uncached(states, batch, spans)
        return torch.from_numpy(states).view(self.dtype).view(rows, length, -1)

    # ---- internals ----

    def _is_cached(self, chunk: int) -> bool:
        """Return whether a chunk is stored, or will be once it is computed."""
        if not 0 <= chunk < self.chunks:
            return False
        return self._store is None or not self._store.full or self._store.has(chunk)

    def _pieces_of_chunk(self, chunk: int, pieces: NDArray[np.int64]) -> list[Bytes]:
        """Return the states of some pieces of a chunk; compute and store the whole chunk if it is missing."""
        if self._store is not None and self._store.has(chunk):
            values = [self._store.read(int(self._row[p]), int(self.pieces.count[p])) for p in pieces]
            if all(value is not None for value in values):
                return values  # type: ignore[return-value]
        batch = self._batches.batch(0, chunk)
        states = _bytes_of(self._run_frozen(*_ids_of(batch), batch.documents)).reshape(-1, self.row_bytes)
        states = states[batch.documents.flatten() >= 0]
        if self._store is not None:
            self._store.write(chunk, states)
        starts = self._row[pieces] - self._starts[chunk]
        return [states[s : s + self.pieces.count[p]] for s, p in zip(starts, pieces, strict=True)]

    def _compute_uncached(self, states: Bytes, batch: Batch, spans: list[tuple[int, int]]) -> None:
        """Compute some documents of a batch, packed into one row, and write their states in place.

        `spans` are the start and length of each document in the flattened batch.
        """
        chosen = np.concatenate([np.arange(start, start + count) for start, count in spans])
        documents = np.concatenate([np.full(count, i) for i, (_, count) in enumerate(spans)])
        tokens, positions = (ids.flatten()[chosen][None] for ids in _ids_of(batch))
        computed = _bytes_of(self._run_frozen(tokens, positions, documents[None]))
        states[chosen] = computed.reshape(len(chosen), -1)

    def _run_frozen(
        self, tokens: torch.Tensor, positions: torch.Tensor, documents: NDArray[np.int32]
    ) -> torch.Tensor:
        """Run the frozen blocks: the hidden states before block `first`, without dropout."""
        with torch.no_grad(), evaluating(self.model):
            x = self.model.embed(tokens, positions)
            return self.model.from_block(x, positions, spans_of(documents), last=self.first)

    def _key(self) -> str:
        """Hash what the states depend on: frozen weights, token ids, and the packing of epoch 0."""
        key = hashlib.blake2b(digest_size=16)
        key.update(repr((self.model.config, self.first, self.dtype, self._starts.tolist())).encode())
        frozen = ("embed.", *(f"blocks.{i}." for i in range(self.first)))
        for name, parameter in self.model.named_parameters():
            if name.startswith(frozen):
                key.update(name.encode())
                key.update(_bytes_of(parameter.detach()).data)
        ids = self._batches.examples.store.ids
        for array in (self.pieces.first, self.pieces.count, self._chunk, self._row, ids):
            key.update(np.ascontiguousarray(array).view(np.uint8).data)
        return key.hexdigest()


class ActivationCaches:
    """A run's caches of training and validation data, under one limit; `messages` are for the user."""

    def __init__(self, train: ActivationCache, validation: ActivationCache | None) -> None:
        self.train, self.validation = train, validation
        self.messages: list[str] = []
        self._folder: Path | None = None

    @classmethod
    def of(
        cls, model: Model, train: PackedSampler, validation: PackedSampler | None, settings: TrainSettings
    ) -> ActivationCaches | None:
        """Create the caches of a model whose lowest blocks are frozen; None for others or without a limit."""
        first, limit = first_trained_block(model), int((settings.cache_limit or 0) * 2**30)
        if first == 0 or limit <= 0:
            return None
        held_out = None if validation is None else ActivationCache(model, validation, first, limit)
        rest = limit - (held_out.bytes if held_out else 0)
        return cls(ActivationCache(model, train, first, rest), held_out)

    def open(self, folder: Path, *, several_epochs: bool) -> None:
        """Store states in a folder: of validation data always, of training data if it is read repeatedly."""
        train, say, self._folder = self.train, self.messages.append, folder
        if self.validation is not None:
            self.validation.open(folder, "validation", say)
        if not several_epochs:
            return
        frozen = "Block 0 is" if train.first == 1 else f"Blocks 0-{train.first - 1} are"
        its, them = ("its", "it") if train.first == 1 else ("their", "them")
        say(
            f"{frozen} frozen; caching {its} output in {folder} ({memory_text(train.bytes)}) so later epochs"
            f" skip {them}."
        )
        if train.share < 1:
            say(
                f"The cache holds {train.share:.0%} of the data, and the rest is computed in every epoch;"
                f" --cache-limit {self.needed / 2**30:.1f} would hold all of it."
            )
        if any(module.p for module in train.model.modules() if isinstance(module, torch.nn.Dropout)):
            say(
                "The frozen blocks run without dropout, because their output is cached; --no-cache restores"
                " it."
            )
        train.open(folder, "train", say)

    @property
    def bytes(self) -> int:
        """Bytes that the caches will take on disk."""
        return self.train.bytes + (self.validation.bytes if self.validation else 0)

    @property
    def needed(self) -> int:
        """Bytes that the caches would take without a limit."""
        return self.train.needed + (self.validation.needed if self.validation else 0)

    def close(self) -> None:
        """Close the files, and leave them for a resumed run."""
        self.train.close()
        if self.validation is not None:
            self.validation.close()

    def remove(self) -> None:
        """Delete the files."""
        self.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def first_trained_block(model: Model) -> int:
    """Return the number of the first block with a trained parameter; 0 if the embeddings are trained too."""
    if any(parameter.requires_grad for parameter in model.embed.parameters()):
        return 0
    trained = (any(p.requires_grad for p in block.parameters()) for block in model.blocks)
    return next((i for i, is_trained in enumerate(trained) if is_trained), 0)


def _document_starts(documents: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return where each document begins in the flattened batch."""
    rows, length = documents.shape
    before = np.full((rows, length), -1, np.int32)
    before[:, 1:] = documents[:, :-1]
    return np.flatnonzero((documents >= 0) & (documents != before))


def _ids_of(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    flat: Bytes = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return flat
