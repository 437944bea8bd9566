"""Surprise: the surprisal of each token of a text, given the tokens before it, and its rank.

Surprisal, the technical term, is -log2(probability), in bits: 0 for a certain token, 1 for a coin toss, 10
for one in 1,024. Its mean is the cross-entropy of the text, and 2 to the power of the mean is the perplexity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.arguments import source_of
from pophood.look.blocks import Block, Coloured
from pophood.look.source import PROMPT, quoted, quoted_end
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.score import logit_rows
from pophood.phrases import later, phrase
from pophood.plaintext import read_text
from pophood.sampling.softmax import Floats, log_sum_exp
from pophood.table import Table, count

HIGH = 12.0  # bits at the end of the colour scale: one in 4,096
SCALE = later("surprisal in bits: 0 certain, 1 a coin toss, 10 one in a thousand")


@dataclass(frozen=True, eq=False)
class SurpriseView(View):
    """Every token of a text: `log_probabilities` [T] in nats and `ranks` [T] (1: the model's first guess).

    The first token of the text, and of each window of a long text, has no context: its values are NaN and 0.
    """

    log_probabilities: NDArray[np.float64]
    ranks: NDArray[np.int64]
    window: int
    array_names = ("bits", "ranks")

    @property
    def bits(self) -> NDArray[np.float64]:
        """The surprisal of each token, -log2 of its probability; NaN for a token without one."""
        bits: NDArray[np.float64] = -self.log_probabilities / math.log(2)
        return bits

    @property
    def scored(self) -> int:
        """The number of tokens that have a probability."""
        return int(np.count_nonzero(~np.isnan(self.log_probabilities)))

    @property
    def mean_bits(self) -> float:
        """The mean surprisal in bits per scored token; NaN if there is none."""
        return float(np.nansum(self.bits)) / self.scored if self.scored else math.nan

    @property
    def perplexity(self) -> float:
        """The perplexity, 2 ** mean_bits: as many equally likely tokens have the same mean surprisal."""
        return float(2.0**self.mean_bits)

    @property
    def headline(self) -> str:
        if not self.scored:
            return phrase(
                "{text} is one token: it has no context, so it has no surprisal",
                text=quoted_end(self.source.text),
            )
        return phrase(
            "How surprising each token was to {model}: on average {mean_bits:.2f} bits "
            "over {tokens}, perplexity {perplexity:,.1f}",
            model=self.source.model,
            mean_bits=self.mean_bits,
            tokens=count(self.scored, "token"),
            perplexity=self.perplexity,
        )

    @property
    def alt(self) -> str:
        order = np.argsort(-np.nan_to_num(self.bits, nan=-1.0), kind="stable")[: min(5, self.scored)]
        worst = "; ".join(
            phrase("{token} {bits:.1f} bits", token=quoted(self.source.tokens[i]), bits=self.bits[i])
            for i in order.tolist()
        )
        first = int(np.count_nonzero(self.ranks == 1))
        return phrase(
            "The text, each token on a colour that shows its surprisal in bits, with a "
            "colour bar. {first:,} of {tokens} {what} the model's first guess. The most "
            "surprising: {worst}.",
            first=first,
            tokens=count(self.scored, "token"),
            what=phrase("was") if self.scored == 1 else phrase("were"),
            worst=worst or phrase("none"),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = (
            phrase(
                "Surprisal is -log2 of the probability that the model gave the token. The "
                "first token has none, since nothing comes before it."
            ),
            phrase(
                "The colours end at {high:g} bits (one in {rare:,.0f}); the table has the exact values.",
                high=HIGH,
                rare=2**HIGH,
            ),
        )
        windows = -(-len(self.source.ids) // self.window)
        if windows == 1:
            return notes
        return (
            *notes,
            phrase(
                "The text is longer than the window of {window:,} tokens: it was read in "
                "{windows:,} separate windows, and the first token of each has no probability "
                "(as in LM.score).",
                window=self.window,
                windows=windows,
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `tokens` (probability, bits and rank of each) and `summary` (mean and perplexity)."""
        measured = zip(self.log_probabilities.tolist(), self.bits.tolist(), self.ranks.tolist(), strict=True)
        numbers = [(None,) * 3 if math.isnan(log) else (math.exp(log), *rest) for log, *rest in measured]
        tokens = zip(self.source.ids, self.source.tokens, numbers, strict=True)
        rows = tuple((i, id_, text, *values) for i, (id_, text, values) in enumerate(tokens))
        columns = ("position", "token_id", "token_text", "probability", "bits", "rank")
        mean, perplexity = (self.mean_bits, self.perplexity) if self.scored else (None, None)
        summary = (
            (phrase("tokens"), len(self.source.ids)),
            (phrase("tokens with a probability"), self.scored),
            (phrase("mean surprise, bits per token"), mean),
            (phrase("perplexity"), perplexity),
            (phrase("first guesses that were right"), int(np.count_nonzero(self.ranks == 1))),
        )
        return {
            "tokens": Table(columns, rows, bars="probability", decimals={"bits": 2}),
            "summary": Table(("figure", "value"), summary),
        }

    def picture(self) -> tuple[Block, ...]:
        pieces = tuple(zip(self.source.tokens, self.bits.tolist(), strict=True))
        return Coloured(self.title, pieces, 0.0, HIGH, phrase(SCALE)), self.tables()["summary"]


def surprise(lm: LM, text: Text | Path = PROMPT, *, window: int | None = None) -> SurpriseView:
    """Measure the surprisal of every token of a text, or of a file given as a Path.

    A text longer than the context window is read in separate windows of `window` tokens (default: the
    context). Raises BadInput for a text that is empty or not UTF-8.

        look.surprise(lm, Path("notes.txt")).perplexity
    """
    limit = lm.engine.context
    size = limit if window is None else window
    if not 2 <= size <= limit:
        raise BadInput(f"window must be 2..{limit:,} tokens, got {size:,}")
    source = source_of(lm, read_text(text) if isinstance(text, Path) else text, whole=False)
    ids = np.asarray(source.ids, np.int64)
    log_probabilities = np.full(len(ids), np.nan)
    ranks = np.zeros(len(ids), np.int64)
    for start in range(0, len(ids), size):
        for place, rows in logit_rows(lm.engine, source.ids[start : start + size]):
            for i, row in enumerate(rows, start + place):
                log_probabilities[i], ranks[i] = place_of(row, int(ids[i]))
    return SurpriseView(source, log_probabilities, ranks, size)


def place_of(row: Floats, token: int) -> tuple[float, int]:
    """Return (log-probability in nats, rank from 1) of a token in a row of logits [V]; ties rank by id.

    >>> place_of(np.array([1, 1, 1, 1], np.float32), 2)[1]
    3
    """
    value = row[token]
    rank = 1 + int(np.count_nonzero(row > value)) + int(np.count_nonzero(row[:token] == value))
    return float(value) - log_sum_exp(row), rank
