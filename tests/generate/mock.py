"""A mock model and tokenizer: logits are a hash of the history, tokens are pieces of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.sampling import measures, ranked

LETTERS = "abcdefgh"


class MockTokenizer:
    """A tokenizer whose tokens are pieces of bytes; the last ones may be special."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        specials: Mapping[int, str] | None = None,
        stops: Mapping[int, str] | None = None,
        start_ids: tuple[int, ...] = (),
    ) -> None:
        self.pieces = list(pieces)
        self.vocab_size = len(self.pieces)
        self.specials = dict(specials or {})
        self.stops = dict(stops or {})
        self.start_ids = start_ids

    def token_bytes(self, token: int) -> bytes:
        return self.specials[token].encode() if token in self.specials else self.pieces[token]

    def without_first_space(self, data: bytes) -> bytes:
        return data.removeprefix(b" ")

    def token_text(self, token: int) -> str:
        return self.specials.get(token) or self.pieces[token].decode(errors="backslashreplace")

    def id_of(self, text: str) -> int | None:
        named = {name: token for token, name in self.specials.items()}
        if text in named:
            return named[text]
        raw = text.encode()
        return self.pieces.index(raw) if raw in self.pieces else None

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        shown = (self.specials[i].encode() if i in self.specials else self.pieces[i] for i in ids)
        kept = b"".join(
            piece for i, piece in zip(ids, shown, strict=True) if special or i not in self.specials
        )
        return kept.decode(errors="replace")


class MockDecoder:
    """A decoder whose logits depend on the whole history only.

    Once the history is `prompt_length` long, the tokens of `script` get by far the largest logit, one after
    the other. Call number `fail_at` raises `failure` and leaves every sequence unchanged, as the engine does;
    call number `nan_at` returns a NaN in its last row.
    """

    def __init__(self, vocab_size: int = 16, context: int = 64) -> None:
        self.context = context
        self.adapters: tuple[int, ...] = ()
        self.config = ModelConfig(
            architecture="mock",
            n_layer=1,
            n_head=1,
            n_kv_head=1,
            n_embd=1,
            head_dim=1,
            n_inner=1,
            vocab_size=vocab_size,
            n_positions=context,
            norm="rms",
            norm_eps=1e-5,
            activation="silu",
            gated_mlp=True,
            rope=None,
            qkv_bias=False,
            attn_out_bias=False,
            mlp_bias=False,
            qk_norm=False,
            tied_output=True,
        )
        self.sequences: dict[int, list[int]] = {}
        self.script: list[int] = []
        self.prompt_length = 0
        self.calls: list[list[int]] = []  # tokens given to each sequence, call by call
        self.failure: BaseException | None = None
        self.fail_at = 0
        self.nan_at = 0
        self._next = 0

    def new_sequence(self) -> int:
        self._next += 1
        self.sequences[self._next] = []
        return self._next

    def fork(self, sequence: int) -> int:
        copy = self.new_sequence()
        self.sequences[copy] = list(self._of(sequence))
        return copy

    def truncate(self, sequence: int, length: int) -> None:
        assert 0 <= length <= len(self._of(sequence))
        del self.sequences[sequence][length:]

    def drop(self, sequence: int) -> None:
        self._of(sequence)
        del self.sequences[sequence]

    def length(self, sequence: int) -> int:
        return len(self._of(sequence))

    def logits(self, batch: Sequence[tuple[int, Sequence[int]]], cancel: Any = None) -> NDArray[np.float32]:
        assert len({sequence for sequence, _ in batch}) == len(batch)
        self.calls.append([len(ids) for _, ids in batch])
        if self.failure is not None and len(self.calls) == self.fail_at:
            raise self.failure
        for sequence, ids in batch:
            assert ids
            assert len(self._of(sequence)) + len(ids) <= self.context
            self.sequences[sequence].extend(ids)
        rows = np.stack([self._row(self.sequences[sequence]) for sequence, _ in batch])
        if len(self.calls) == self.nan_at:
            rows[-1, 0] = np.nan
        return rows

    def summary(self, batch: Sequence[tuple[int, Sequence[int]]], k: int = 0, cancel: Any = None) -> Any:
        rows = self.logits(batch, cancel)
        ids = np.stack([ranked(row, k) for row in rows]).astype(np.int32)
        both = np.array([measures(row) for row in rows])
        logits = np.take_along_axis(rows, ids.astype(np.intp), axis=1)
        return SimpleNamespace(ids=ids, logits=logits, log_mass=both[:, 0], entropy=both[:, 1])

    def adapters_of(self, sequence: int) -> tuple[int, ...]:
        self._of(sequence)
        return self.adapters

    def _of(self, sequence: int) -> list[int]:
        if sequence not in self.sequences:
            raise IndexError(f"sequence {sequence} does not exist")
        return self.sequences[sequence]

    def _row(self, history: Sequence[int]) -> NDArray[np.float32]:
        seed = 1
        for token in history:
            seed = (seed * 1_000_003 + token + 1) % (2**61 - 1)
        row = (np.random.default_rng(seed).standard_normal(self.config.vocab_size) * 2).astype(np.float32)
        step = len(history) - self.prompt_length
        if 0 <= step < len(self.script):
            row[self.script[step]] = 50
        return row
