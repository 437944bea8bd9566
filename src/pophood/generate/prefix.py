"""PrefixCache: keeps keys and values of the last generation for prompts that begin with the same tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig


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


class Decoder(Protocol):
    """A model that keeps sequences and appends tokens to them, such as `engine.Engine`.

    Its methods raise IndexError for a sequence that does not exist or was dropped.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def context(self) -> int:
        """The number of positions that a sequence can hold."""

    def new_sequence(self) -> int: ...

    def fork(self, sequence: int, /) -> int: ...

    @property
    def adapters(self) -> tuple[int, ...]:
        """The adapters that a new sequence is computed with."""

    def adapters_of(self, sequence: int, /) -> tuple[int, ...]: ...

    def truncate(self, sequence: int, length: int, /) -> None: ...

    def drop(self, sequence: int, /) -> None: ...

    def length(self, sequence: int, /) -> int: ...

    def logits(self, batch: Sequence[tuple[int, Sequence[int]]], cancel: Any = None) -> NDArray[np.float32]:
        """Append tokens to sequences; return the logits [len(batch), V] after the last token of each."""

    def summary(
        self, batch: Sequence[tuple[int, Sequence[int]]], k: int = 0, cancel: Any = None
    ) -> Distribution:
        """Append tokens to sequences; return the k likeliest tokens after the last token of each."""


class PrefixCache:
    """Keeps one sequence of an engine with its tokens, so that the next prompt computes only what differs.

    A conversation is then computed once, instead of once per turn. The caller of `take` owns the sequence
    until `keep`. The engine drops all sequences when its weights change; the cache then starts with a new
    one.

    Example: `prefix = PrefixCache(engine)`, then pass it to every `generate`.
    """

    def __init__(self, engine: Decoder) -> None:
        self._engine = engine
        self._sequence: int | None = None
        self._ids: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens in the cached sequence."""
        return self._ids

    def take(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return a sequence that holds the first n of `ids`, and n, which is less than len(ids)."""
        sequence, cached = self._sequence, self._ids
        self._sequence, self._ids = None, ()
        if sequence is not None:
            shared = min(common_length(cached, ids), len(ids) - 1)
            with contextlib.suppress(IndexError):  # the engine has dropped it
                if self._engine.adapters_of(sequence) == self._engine.adapters:
                    self._engine.truncate(sequence, shared)
                    return sequence, shared
                self._engine.drop(sequence)
        return self._engine.new_sequence(), 0

    def keep(self, sequence: int, ids: Sequence[int]) -> None:
        """Keep a sequence, which holds the first of `ids`, and drop the one kept before."""
        self.forget()
        self._sequence, self._ids = sequence, tuple(ids[: self._engine.length(sequence)])

    def forget(self) -> None:
        """Drop the cached sequence."""
        sequence, self._sequence, self._ids = self._sequence, None, ()
        if sequence is not None:
            with contextlib.suppress(IndexError):  # the engine has dropped it
                self._engine.drop(sequence)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens that two sequences have in common from the start.

    >>> common_length([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
