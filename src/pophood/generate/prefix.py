"""PrefixCache: what the last generation computed, kept for the next one that begins the same way."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig


class Decoder(Protocol):
    """A model that keeps sequences and appends to them: `engine.Engine` is one.

    A sequence that does not exist (any more) is an IndexError.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def context(self) -> int:
        """Positions that a sequence can hold."""

    def new_sequence(self) -> int: ...

    def fork(self, sequence: int, /) -> int: ...

    def truncate(self, sequence: int, length: int, /) -> None: ...

    def drop(self, sequence: int, /) -> None: ...

    def length(self, sequence: int, /) -> int: ...

    def logits(self, batch: Sequence[tuple[int, Sequence[int]]], cancel: Any = None) -> NDArray[np.float32]:
        """Append tokens to sequences; logits [len(batch), V] after the last token of each."""


class PrefixCache:
    """Remembers one sequence of an engine and its tokens; the next prompt reuses what it shares with them.

    A conversation is then computed once, not once per turn. Whoever takes the sequence owns it until it is
    kept again. New weights make the engine drop every sequence; the cache notices and begins anew.

    Example: `prefix = PrefixCache(engine)`, then pass it to every `generate`.
    """

    def __init__(self, engine: Decoder) -> None:
        self._engine = engine
        self._sequence: int | None = None
        self._ids: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens that the kept sequence holds."""
        return self._ids

    def take(self, ids: Sequence[int]) -> tuple[int, int]:
        """A sequence that holds the first n of `ids`, and n. The last token is always left to compute."""
        sequence, held = self._sequence, self._ids
        self._sequence, self._ids = None, ()
        if sequence is not None:
            shared = min(common_length(held, ids), len(ids) - 1)
            with contextlib.suppress(IndexError):  # the engine has dropped it
                self._engine.truncate(sequence, shared)
                return sequence, shared
        return self._engine.new_sequence(), 0

    def keep(self, sequence: int, ids: Sequence[int]) -> None:
        """Remember a sequence; what it holds are the first of `ids`. The one kept before is dropped."""
        self.forget()
        self._sequence, self._ids = sequence, tuple(ids[: self._engine.length(sequence)])

    def forget(self) -> None:
        """Drop what is kept."""
        sequence, self._sequence, self._ids = self._sequence, None, ()
        if sequence is not None:
            with contextlib.suppress(IndexError):  # the engine has dropped it
                self._engine.drop(sequence)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start.

    >>> common_length([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
