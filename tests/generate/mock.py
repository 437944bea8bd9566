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


class MockFlag:
    """A flag that ends a sequence."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


class MockDecoder:
    """A decoder whose logits depend on the whole history only.

    Once the history is `prompt_length` long, the tokens of `script` get by far the largest logit, one after
    the other. Calls from number `fail_at` on raise `failure` and leave every sequence unchanged, as the
    engine does; call number `nan_at` returns a NaN in its last row.
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
            qk_norm=None,
            tied_output=True,
        )
        self.sequences: dict[int, list[int]] = {}
        self._adapters: dict[int, tuple[int, ...]] = {}
        self.cancels: list[Any] = []  # the flag of each call
        self.script: list[int] = []
        self.prompt_length = 0
        self.calls: list[list[int]] = []  # tokens given to each sequence, call by call
        self.failure: BaseException | None = None
        self.fail_at = 0
        self.nan_at = 0
        self._next = 0

    def new_sequence(self, adapters: Sequence[int] | None = None) -> int:
        self._next += 1
        self.sequences[self._next] = []
        self._adapters[self._next] = self.adapters if adapters is None else tuple(adapters)
        return self._next

    def fork(self, sequence: int) -> int:
        copy = self.new_sequence(self.adapters_of(sequence))
        self.sequences[copy] = list(self._of(sequence))
        return copy

    def cancel_flag(self) -> MockFlag:
        return MockFlag()

    def truncate(self, sequence: int, length: int) -> None:
        assert 0 <= length <= len(self._of(sequence))
        del self.sequences[sequence][length:]

    def resumable(self, sequence: int, length: int) -> int:
        return min(length, len(self._of(sequence)))

    def forget_windows(self, sequence: int) -> None:
        self._of(sequence)

    def drop(self, sequence: int) -> None:
        self._of(sequence)
        del self.sequences[sequence]

    def length(self, sequence: int) -> int:
        return len(self._of(sequence))

    def logits(self, batch: Sequence[tuple[int, Sequence[int]]]) -> NDArray[np.float32]:
        """Append tokens; return the logits after the last of each sequence."""
        whole = self.summary(batch, rows=[1] * len(batch), whole=True).whole
        assert isinstance(whole, np.ndarray)
        return whole

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
        readings: Sequence[Any] = (),
    ) -> Any:
        assert len({sequence for sequence, _ in batch}) == len(batch)
        self.calls.append([len(ids) for _, ids in batch])
        self.cancels.append(cancel)
        if self.failure is not None and len(self.calls) >= self.fail_at:
            raise self.failure
        cancelled = tuple(i for i, _ in batch if i in cancels and cancels[i].is_set)
        logits = np.empty((sum(rows), self.config.vocab_size), np.float32)
        place = 0
        for (sequence, ids), n in zip(batch, rows, strict=True):
            history = [*self._of(sequence), *ids]
            assert ids and len(history) <= self.context
            if sequence not in cancelled:
                self.sequences[sequence] = history
            for length in range(len(history) - n + 1, len(history) + 1):
                logits[place] = self._row(
                    [*history[: length - 1], *self._adapters[sequence], history[length - 1]]
                )
                place += 1
        if len(self.calls) == self.nan_at:
            logits[-1, 0] = np.nan
        likeliest = np.array([ranked(row, k) for row in logits] if k else [], np.int32).reshape(-1, k or 1)
        likeliest = likeliest if k else np.empty((len(logits), 0), np.int32)
        both = np.array([measures(row) for row in logits]).reshape(len(logits), 2)
        own = None if targets is None else logits[np.arange(len(logits)), np.array(targets, np.intp)]
        return SimpleNamespace(
            ids=likeliest,
            logits=np.take_along_axis(logits, likeliest.astype(np.intp), axis=1),
            log_mass=both[:, 0],
            entropy=both[:, 1],
            target_logits=own,
            whole=logits if whole else None,
            cancelled=cancelled,
            readings=(),
        )

    def unembed(self, hidden: NDArray[np.float32], k: int = 0, *, entropy: bool = True) -> Any:
        raise NotImplementedError

    def adapters_of(self, sequence: int) -> tuple[int, ...]:
        self._of(sequence)
        return self._adapters[sequence]

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
