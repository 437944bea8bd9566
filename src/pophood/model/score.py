"""A model's predictions along a text: rows of logits, log-probabilities of its tokens, greedy continuations.

Perplexity, evaluation and the views of `look` stand on it. It neither chooses texts nor judges values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
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
    """Log-probabilities [T] of a text's tokens in nats, NaN for the first token of each window."""

    token_ids: list[int]
    log_probabilities: NDArray[np.float32]

    @property
    def scored(self) -> int:
        """The number of tokens that have a probability."""
        return int(np.count_nonzero(~np.isnan(self.log_probabilities)))

    @property
    def mean_nll(self) -> float:
        """Mean negative log-likelihood in nats per scored token; NaN if there is none."""
        total = float(np.nansum(self.log_probabilities, dtype=np.float64))
        return -total / self.scored if self.scored else math.nan

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
    """Score token ids in windows of `window` tokens, by default the context.

    A window begins with the last `overlap` tokens of the one before, which are only read. With overlap 0 the
    first token of each window has no probability (NaN). `progress(done, total)` counts tokens. Raises
    BadInput for a window that does not fit.
    """
    values = np.full(len(ids), np.nan, np.float32)
    for start, end, first in windows_of(len(ids), engine.context, window, overlap):
        with engine.sequence() as sequence:
            if first > 1:
                engine.forward([(sequence, ids[start : start + first - 1])], output="none", cancel=cancel)
            if end - start > first:
                read, targets = ids[start + first - 1 : end - 1], ids[start + first : end]
                summary = engine.summary([(sequence, read)], cancel=cancel, rows="all", targets=targets)
                values[start + first : end] = summary.target_log_probabilities
        if progress is not None:
            progress(end, len(ids))
    return Score(list(ids), values)


def windows_of(
    n: int, context: int, window: int | None = None, overlap: int = 0
) -> Iterator[tuple[int, int, int]]:
    """Yield (start, end, first) of each window of n tokens; those before `start + first` are only read.

    Raises BadInput for a window that does not fit the context.

    >>> list(windows_of(10, 4)), list(windows_of(10, 6, overlap=2))
    ([(0, 4, 1), (4, 8, 1), (8, 10, 1)], [(0, 6, 1), (4, 10, 2)])
    """
    window = context if window is None else window
    if not 2 <= window <= context:
        raise BadInput(f"window must be 2..{context:,} tokens, got {window:,}")
    if not 0 <= overlap < window:
        raise BadInput(f"overlap must be 0..{window - 1:,} tokens, got {overlap:,}")
    for start in range(0, n, window - overlap):
        end = min(start + window, n)
        yield start, end, max(1, overlap) if start else 1  # the window before scored the tokens below
        if end == n:
            break


def logit_rows(
    engine: Engine, ids: Sequence[int], *, first: int = 1, cancel: CancelFlag | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Read `ids` once and yield (place, logits [n, V]): row i predicts the token `ids[place + i]`.

    Rows begin with the one that predicts `ids[first]` and come at most ROWS at a time; the last token is not
    read, since its row would predict nothing here. Raises ContextOverflow, EngineError, Cancelled.
    """
    with engine.sequence() as sequence:
        if first > 1:
            engine.forward([(sequence, ids[: first - 1])], output="none", cancel=cancel)
        for start in range(first - 1, len(ids) - 1, ROWS):
            end = min(start + ROWS, len(ids) - 1)
            yield start + 1, engine.logits([(sequence, ids[start:end])], cancel, rows="all")


def greedy(engine: Engine, prompts: Sequence[Sequence[int]], steps: int) -> Iterator[dict[int, int]]:
    """Yield {index of a prompt: its likeliest next token} `steps` times; ties go to the lowest id.

    The prompts are continued as one batch. Delete an index from the dict to end that text.

        [tokens[0] for tokens in greedy(lm.engine, [lm.tokenize("The capital of Spain is")], 5)]
    """
    with ExitStack() as stack:
        sequences = [stack.enter_context(engine.sequence()) for _ in prompts]
        fed: dict[int, Sequence[int]] = dict(enumerate(prompts))
        for _ in range(steps):
            likeliest = engine.summary([(sequences[i], ids) for i, ids in fed.items()], k=1).ids[:, 0]
            tokens = dict(zip(fed, likeliest.tolist(), strict=True))
            yield tokens
            if not tokens:
                return
            fed = {i: [token] for i, token in tokens.items()}


def log_softmax_at(logits: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the log softmax of each row at one id, with sums in float64: [N, V], [N] -> [N].

    >>> log_softmax_at(np.zeros((1, 4), np.float32), np.array([2])).tolist()
    [-1.3862943649291992]
    """
    highest = logits.max(axis=1)
    total = np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64)
    chosen = logits[np.arange(len(ids)), ids]
    values: NDArray[np.float32] = (chosen.astype(np.float64) - highest - np.log(total)).astype(np.float32)
    return values


def top_table(row: Floats, k: int, spell: Callable[[int], str]) -> Table:
    """Return the table of the k likeliest tokens of a row [V]: token_id, token_text, logit, probability."""
    mass = log_sum_exp(row)
    rows = [(i, spell(i), float(row[i]), float(np.exp(row[i] - mass))) for i in ranked(row, k).tolist()]
    columns = ("token_id", "token_text", "logit", "probability")
    return Table(columns, tuple(rows), bars="probability", decimals={"logit": 2})


def check_k(k: int, vocabulary: int) -> None:
    """Raise BadInput unless k is between 1 and the size of the vocabulary."""
    if not 1 <= k <= vocabulary:
        raise BadInput(f"k must be 1..{vocabulary:,}, got {k}")
