"""Decoder: what generation needs of a model, as a protocol. `model.engine.Engine` is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.taps import RowReading

BLOCK = 32  # positions whose keys and values lie together; sequences share whole blocks
CHUNK = 512  # tokens of one native call: enough to use the multipliers, few enough to stop quickly
KV_SLACK = 128  # positions before an attention window whose keys and values stay, for going back a little


def blocks_of(positions: int) -> int:
    """Return the number of KV blocks that hold so many positions.

    >>> [blocks_of(n) for n in (0, 1, 32, 33)]
    [0, 1, 1, 2]
    """
    return -(-positions // BLOCK)


@dataclass(frozen=True, slots=True)
class KvBlocks:
    """Counts keys and values in blocks of BLOCK positions and all `layers`.

    Of those, `windowed` layers have attention windows, the widest of `window` positions. A sequence keeps of
    them what its next position sees, and KV_SLACK positions.

    >>> KvBlocks(layers=18, windowed=15, window=512).held(32_768)
    188
    """

    layers: int = 1
    windowed: int = 0
    window: int = 0

    @classmethod
    def of(cls, config: ModelConfig) -> KvBlocks:
        """Return the counts of a model."""
        windows = [block.window for block in config.block_attention if block.window]
        return cls(config.n_layer, len(windows), max(windows, default=0))

    def held(self, end: int, start: int = 0, *, windows: bool = True, shares: bool = True) -> int:
        """Return the blocks that a sequence of `end` positions has beside one with its first `start`.

        Without `windows` it keeps nothing in layers that have them, without `shares` the other does not.
        """
        whole = blocks_of(end) - start // BLOCK
        first = max((end + 1 - self.window - KV_SLACK) // BLOCK, start // BLOCK if shares else 0, 0)
        return self._count(whole, blocks_of(end) - first if windows else 0)

    def computed(self, end: int, start: int = 0) -> int:
        """Return the blocks that one has at most while it grows to `end` positions in chunks."""
        whole = blocks_of(end) - start // BLOCK
        return self._count(whole, min(whole, blocks_of(self.window + KV_SLACK + CHUNK) + 1))

    def longest(self, blocks: int) -> int:
        """Return the most positions that one sequence can grow to in so many blocks.

        >>> KvBlocks(layers=2).longest(3), KvBlocks(layers=2, windowed=1, window=32).longest(40)
        (96, 1856)
        """
        full = self.layers - self.windowed
        apart = blocks_of(self.window + KV_SLACK + CHUNK) + 1
        if not self.windowed or blocks <= apart:
            return blocks * BLOCK
        if not full:
            return 1 << 40
        return (blocks * self.layers - self.windowed * apart) // full * BLOCK

    def _count(self, whole: int, windowed: int) -> int:
        return -(-((self.layers - self.windowed) * whole + self.windowed * windowed) // self.layers)


class Flag(Protocol):
    """Ends a pass, or one sequence of it, within one block of the model. Any thread may set it."""

    def set(self) -> None: ...

    @property
    def is_set(self) -> bool: ...


class Distribution(Protocol):
    """The distribution of the next token in each of R rows, as `Decoder.summary` returns it."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """The k likeliest tokens [R, k], the likeliest first, ties by ascending id."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """Their logits, [R, k]."""

    @property
    def log_mass(self) -> NDArray[np.float64]:
        """Log-sum-exp of all logits, [R]."""

    @property
    def entropy(self) -> NDArray[np.float64]:
        """Entropy in nats, [R]."""

    @property
    def target_logits(self) -> NDArray[np.float32] | None:
        """Logits of the targets, [R]; None if there were none."""

    @property
    def whole(self) -> NDArray[np.float32] | None:
        """All logits [R, V], if they were asked for."""

    @property
    def readings(self) -> tuple[NDArray[np.float32], ...]:
        """The values of the readings that were asked for, in their order."""

    @property
    def cancelled(self) -> tuple[int, ...]:
        """Sequences that their own flags ended: their lengths are as before, their rows mean nothing."""


class Decoder(Protocol):
    """A model that keeps sequences and appends tokens to them.

    Its methods raise IndexError for a sequence that does not exist or was dropped.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def context(self) -> int:
        """The number of positions that a sequence can hold."""

    @property
    def adapters(self) -> tuple[int, ...]:
        """The adapters that a new sequence is computed with."""

    def new_sequence(self, adapters: Sequence[int] | None = None, /) -> int: ...

    def adapters_of(self, sequence: int, /) -> tuple[int, ...]: ...

    def fork(self, sequence: int, /) -> int: ...

    def truncate(self, sequence: int, length: int, /) -> None: ...

    def resumable(self, sequence: int, length: int, /) -> int:
        """Return the most positions, up to `length`, after which nothing has to be computed again."""

    def forget_windows(self, sequence: int, /) -> None:
        """Free what a sequence keeps of layers with an attention window."""

    def drop(self, sequence: int, /) -> None: ...

    def length(self, sequence: int, /) -> int: ...

    def cancel_flag(self) -> Flag: ...

    def summary(
        self,
        batch: Sequence[tuple[int, Sequence[int]]],
        k: int = 0,
        cancel: Any = None,
        *,
        rows: Sequence[int],
        allowed: NDArray[np.uint32] | None = None,
        targets: Sequence[int] | None = None,
        whole: bool = False,
        cancels: Mapping[int, Any] = {},
        readings: Sequence[RowReading] = (),
    ) -> Distribution:
        """Append tokens to sequences; return the distributions after the last `rows[i]` tokens of each.

        `k` likeliest tokens, the logits of `targets` (one per row), and all logits if `whole`. Of each row
        only the tokens in `allowed` take part, [rows, ceil(V / 32)], bit i % 32 of word i / 32. `readings`
        are values inside, of rows of the batch. `cancel` ends the call with Cancelled, a flag of `cancels`
        one sequence. After an error every sequence is as before.
        """

    def unembed(self, hidden: NDArray[np.float32], k: int = 0, /, *, entropy: bool = True) -> Distribution:
        """Return the distributions that residual streams [R, C] give as outputs of the last block.

        Without `entropy` it is NaN.
        """
