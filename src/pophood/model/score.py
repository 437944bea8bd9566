"""How probable a model finds a text: the log-probability of every token, in windows, a few rows at a time.

Perplexity and evaluation stand on it. Left out: which text, and what a good value is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.model.engine import CancelFlag, Engine
from pophood.sampling.softmax import Floats, log_sum_exp, ranked
from pophood.table import Table

ROWS = 128  # logit rows held at once: 26 MB at GPT-2's vocabulary


@dataclass(frozen=True, slots=True)
class Score:
    """`log_probabilities` [T] in nats, NaN where a token has nothing before it in its window."""

    token_ids: list[int]
    log_probabilities: NDArray[np.float32]

    @property
    def scored(self) -> int:
        """Tokens that have a probability."""
        return int(np.count_nonzero(~np.isnan(self.log_probabilities)))

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood in nats per scored token; NaN if there is none."""
        return (
            -float(np.nansum(self.log_probabilities, dtype=np.float64)) / self.scored
            if self.scored
            else math.nan
        )

    @property
    def perplexity(self) -> float:
        """exp(mean_nll)."""
        return math.exp(self.mean_nll)


def score_ids(
    engine: Engine,
    ids: Sequence[int],
    *,
    window: int | None = None,
    overlap: int = 0,
    cancel: CancelFlag | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Score:
    """Score token ids in windows of `window` tokens (default: the context); the first `overlap` are context.

    With overlap 0 the windows do not touch, and the first token of each has no probability (NaN).
    `progress(done, total)` counts tokens. Raises BadInput for a window that does not fit.
    """
    window = engine.context if window is None else window
    if not 2 <= window <= engine.context:
        raise BadInput(f"window must be 2..{engine.context:,} tokens, got {window:,}")
    if not 0 <= overlap < window:
        raise BadInput(f"overlap must be 0..{window - 1:,} tokens, got {overlap:,}")
    found = np.full(len(ids), np.nan, np.float32)
    start = 0
    while start < len(ids):
        end = min(start + window, len(ids))
        values = _score_window(engine, ids[start:end], cancel)
        fresh = start + overlap if start else 0
        found[fresh:end] = values[fresh - start :]
        if progress is not None:
            progress(end, len(ids))
        if end == len(ids):
            break
        start = end - overlap
    return Score(list(ids), found)


def _score_window(engine: Engine, ids: Sequence[int], cancel: CancelFlag | None) -> NDArray[np.float32]:
    values = np.full(len(ids), np.nan, np.float32)
    sequence = engine.new_sequence()
    try:
        for start in range(0, len(ids) - 1, ROWS):  # the last token's own logits predict nothing here
            end = min(start + ROWS, len(ids) - 1)
            logits = engine.forward([(sequence, ids[start:end])], rows="all", cancel=cancel).output
            assert logits is not None
            values[start + 1 : end + 1] = log_softmax_at(logits, np.asarray(ids[start + 1 : end + 1]))
    finally:
        engine.drop(sequence)
    return values


def log_softmax_at(logits: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """log softmax of each row at one id: [N, V], [N] -> [N], sums in float64.

    >>> log_softmax_at(np.zeros((1, 4), np.float32), np.array([2])).tolist()
    [-1.3862943649291992]
    """
    highest = logits.max(axis=1)
    total = np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64)
    chosen = logits[np.arange(len(ids)), ids]
    values: NDArray[np.float32] = (chosen.astype(np.float64) - highest - np.log(total)).astype(np.float32)
    return values


def top_table(row: Floats, k: int, spell: Callable[[int], str]) -> Table:
    """The talk's table of a row of logits [V]: token_id, token_text, logit, probability; bars on the last."""
    mass = log_sum_exp(row)
    rows = [(i, spell(i), float(row[i]), float(np.exp(row[i] - mass))) for i in ranked(row, k).tolist()]
    columns = ("token_id", "token_text", "logit", "probability")
    return Table(columns, tuple(rows), bars="probability", decimals={"logit": 2})


def check_k(k: int, vocabulary: int) -> None:
    """BadInput unless k tokens can be listed."""
    if not 1 <= k <= vocabulary:
        raise BadInput(f"k must be 1..{vocabulary:,}, got {k}")
