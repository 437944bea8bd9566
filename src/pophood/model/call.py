"""The arrays that go into a forward pass, and what comes out: outputs, taps, summaries, keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from pophood import _native
from pophood.config import ModelConfig
from pophood.errors import BadInput, Cancelled, EngineError
from pophood.taps import RowReading, Tap

Batch = Sequence[tuple[int, Sequence[int]]]  # a sequence and the tokens that continue it
Rows = Literal["last", "all"]
OutputT = TypeVar("OutputT")
UNEMBEDDED = 64  # rows of logits that the engine holds at a time


def positions(batch: Batch, before: Mapping[int, int]) -> NDArray[np.int64]:
    """Return the position of each row in its sequence, [N]."""
    return np.concatenate([before[sequence] + np.arange(len(ids)) for sequence, ids in batch])


def flatten(
    config: ModelConfig, batch: Batch, rows: Rows | Sequence[int]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens [N], the sequence of each [N], and the indices of the output rows.

    `rows` may also be how many of the last tokens of each sequence have an output row.
    """
    tokens = np.array([token for _, ids in batch for token in config.check_ids(ids)], np.int32)
    lengths = [len(ids) for _, ids in batch]
    if lengths == [1] * len(batch) and (isinstance(rows, str) or rows == lengths):  # decoding
        selected = np.arange(len(batch))
        return tokens, np.array([sequence for sequence, _ in batch], np.int64), selected
    sequences = np.repeat(np.array([sequence for sequence, _ in batch], np.int64), lengths)
    if rows == "all":
        return tokens, sequences, np.arange(len(tokens), dtype=np.int64)
    ends = np.add.accumulate(lengths, dtype=np.int64)
    if rows == "last":
        return tokens, sequences, ends - 1
    chosen = [np.arange(end - n, end) for end, n in zip(ends.tolist(), rows, strict=True)]
    return tokens, sequences, np.concatenate(chosen)


class SharedTurns:
    """Lets others compute with an engine between the native calls of a pass. No bit depends on it."""

    def __init__(self) -> None:
        self._others: Callable[[], int] | None = None

    @contextmanager
    def shared(self, others: Callable[[], int]) -> Iterator[None]:
        """Call `others` before every native call inside the `with`; it returns how many rows that may have.

        What `others` computes itself is not interrupted.
        """
        before, self._others = self._others, others
        try:
            yield
        finally:
            self._others = before

    def rows(self, most: int) -> int:
        """Let others compute, and return the rows of the next native call."""
        if (others := self._others) is None:
            return most
        self._others = None
        try:
            return min(most, others())
        finally:
            self._others = others


def in_chunks(
    run: Callable[[int, int], list[int]], sequences: NDArray[np.int64], rows: Callable[[], int]
) -> set[int]:
    """Run rows [N] in chunks of `rows()`; return the cancelled sequences, whose other rows are left out."""
    cancelled: set[int] = set()
    start = 0
    while start < len(sequences):
        stop = min(start + rows(), len(sequences))
        cancelled.update(run(start, stop))
        while stop < len(sequences) and sequences[stop] in cancelled:
            stop += 1
        start = stop
    return cancelled


@contextmanager
def native_errors() -> Iterator[None]:
    """Raise the native engine's errors as EngineError, BadInput and Cancelled."""
    try:
        yield
    except _native.Forgotten as error:
        raise BadInput(str(error)) from None
    except _native.NotFinite as error:
        raise EngineError(
            f"{error}: the weights hold a NaN or overflow; `pophood show -v` names the tensor"
        ) from None
    except _native.Stopped:
        raise Cancelled("the forward pass was cancelled") from None


def arrays(shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.float32]]:
    """Return arrays that share one allocation, which the system can then back with huge pages."""
    sizes = [math.prod(shape) for shape in shapes]
    arena = np.empty(sum(sizes), np.float32)
    parts = np.split(arena, list(accumulate(sizes[:-1]))) if sizes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


class TapArrays:
    """The arrays of the taps and readings of a pass over `n` rows that attend to up to `keys` positions.

    Taps cover every row, readings those that they name, in ascending order.
    """

    def __init__(self, taps: Sequence[Tap], readings: Sequence[RowReading], n: int, keys: int) -> None:
        self._taps, self._readings = taps, readings
        self._rows = [np.array(reading.rows, np.int64) for reading in readings]
        shapes = [tap.shape(n, keys) for tap in taps] + [reading.shape(keys) for reading in readings]
        self._arrays = arrays(shapes)

    @property
    def by_name(self) -> dict[str, NDArray[np.float32]]:
        """The arrays of the taps."""
        return {tap.name: values for tap, values in zip(self._taps, self._arrays, strict=False)}

    @property
    def in_order(self) -> tuple[NDArray[np.float32], ...]:
        """The arrays of the readings."""
        return tuple(self._arrays[len(self._taps) :])

    def native(self, start: int, stop: int) -> list[tuple[int, int, NDArray[np.float32], Any, int]]:
        """Return the parts for rows start..stop-1 as the engine takes them."""
        parts: list[tuple[int, int, NDArray[np.float32], Any, int]] = [
            (tap.number, tap.layer, values[start:stop], _EVERY_ROW, -1)
            for tap, values in zip(self._taps, self._arrays, strict=False)
        ]
        for reading, rows, values in zip(self._readings, self._rows, self.in_order, strict=True):
            first, last = np.searchsorted(rows, [start, stop])
            if first < last:
                tap = reading.tap
                own = rows[first:last] - start
                parts.append((tap.number, tap.layer, values[first:last], own, reading.head))
        return parts


_EVERY_ROW = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Forward(Generic[OutputT]):
    """The results of a pass: `output` [rows, V] or [rows, C], None for "none"; `taps`: name -> [N, ...].

    `cancelled` are the sequences that their own flags ended.
    """

    output: OutputT
    taps: dict[str, NDArray[np.float32]]
    cancelled: tuple[int, ...] = ()
    readings: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """The distribution softmax(logits) of R rows over the tokens that are allowed.

    `ids` and `logits` [R, k] are the likeliest tokens, the likeliest first, ties by ascending id; where fewer
    are allowed, -1 and -inf. `log_mass` [R] is log-sum-exp and `entropy` [R] the entropy, in nats.
    `target_logits` and `target_ranks` [R] belong to the targets that were asked for; rank 1 is the likeliest.
    `whole` are all logits [R, V], if they were asked for. `cancelled` names the sequences that their own
    flags ended: their rows mean nothing. `readings` has an array for each RowReading that was asked for.
    """

    ids: NDArray[np.int32]
    logits: NDArray[np.float32]
    log_mass: NDArray[np.float64]
    entropy: NDArray[np.float64]
    target_logits: NDArray[np.float32] | None = None
    target_ranks: NDArray[np.int64] | None = None
    whole: NDArray[np.float32] | None = None
    cancelled: tuple[int, ...] = ()
    _allowed: NDArray[np.uint32] | None = None
    _targets: NDArray[np.int32] | None = None
    readings: tuple[NDArray[np.float32], ...] = ()

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """Log-probabilities of `ids` in nats, [R, k]."""
        return self.logits - self.log_mass[:, None]

    @property
    def target_log_probabilities(self) -> NDArray[np.float64]:
        """Log-probabilities of the targets in nats, [R]."""
        if self.target_logits is None:
            raise BadInput("this summary was made without targets")
        return self.target_logits - self.log_mass

    def native(self, first: int, last: int) -> _native.Summary:
        """Return rows first..last-1 as arrays that the engine fills."""

        def part(array: NDArray[Any] | None) -> Any:
            return None if array is None else array[first:last]

        return _native.Summary(
            part(self.ids),
            part(self.logits),
            part(self.log_mass),
            part(self.entropy),
            part(self._allowed),
            part(self._targets),
            part(self.target_logits),
            part(self.target_ranks),
        )


def new_summary(
    config: ModelConfig,
    rows: int,
    k: int,
    allowed: NDArray[np.uint32] | None,
    targets: Sequence[int] | None,
    whole: bool,
) -> Summary:
    """Return a summary of `rows` rows for the engine to fill. Raises BadInput for sizes that do not fit."""
    words = -(-config.vocab_size // 32)
    if not 0 <= k <= config.vocab_size:
        raise BadInput(f"k must be 0..{config.vocab_size:,}, got {k:,}")
    if allowed is not None and (allowed.shape != (rows, words) or allowed.dtype != np.uint32):
        raise BadInput(
            f"allowed must be uint32 [{rows:,}, {words:,}], got {allowed.dtype} {list(allowed.shape)}"
        )
    if targets is not None and len(targets) != rows:
        raise BadInput(f"wanted a target for each of {rows:,} rows, got {len(targets):,}")
    return Summary(
        np.full((rows, k), -1, np.int32),
        np.full((rows, k), -np.inf, np.float32),
        np.full(rows, np.nan),
        np.full(rows, np.nan),
        None if targets is None else np.full(rows, np.nan, np.float32),
        None if targets is None else np.zeros(rows, np.int64),
        np.empty((rows, config.vocab_size), np.float32) if whole else None,
        (),
        None if allowed is None else np.ascontiguousarray(allowed),
        None if targets is None else np.array(config.check_ids(targets), np.int32),
    )


def unembed(
    native: _native.Engine,
    config: ModelConfig,
    hidden: NDArray[np.float32],
    k: int,
    *,
    whole: bool,
    entropy: bool,
    turns: SharedTurns,
) -> Summary:
    """Return what `Engine.unembed` promises, UNEMBEDDED rows of logits at a time."""
    if hidden.ndim != 2 or hidden.shape[1] != config.n_embd or hidden.dtype != np.float32:
        raise BadInput(f"wanted float32 [rows, {config.n_embd:,}], got {hidden.dtype} {list(hidden.shape)}")
    summary = new_summary(config, len(hidden), k, None, None, whole)
    with native_errors():
        for first in range(0, len(hidden), UNEMBEDDED):
            turns.rows(UNEMBEDDED)
            last = min(first + UNEMBEDDED, len(hidden))
            out = None if summary.whole is None else summary.whole[first:last]
            rows = np.ascontiguousarray(hidden[first:last])
            native.unembed(rows, out, summary.native(first, last), entropy)
    return summary


@dataclass(frozen=True, slots=True)
class KvState:
    """Exported keys and values of one sequence, which continue in an engine with the same `geometry`.

    They are those of `positions` positions from `first` on. `data` holds per layer the keys [K, positions,
    D], then the values [K, positions, D], in the engine's type. Layers with an attention window have the
    positions from `windows_from` on alone (None: all); those before can be computed again from `tokens`
    [positions], of which -1 stands for an unknown one.
    """

    geometry: str
    positions: int
    data: NDArray[np.uint8]
    first: int = 0
    windows_from: int | None = None
    tokens: NDArray[np.int32] | None = None
