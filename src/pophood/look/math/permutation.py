"""Why positions matter: two sentences of the same words in a different order, with and without positions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pophood.errors import BadInput
from pophood.look.math.first_block import Floats, last_attention, rows_before
from pophood.model.lm import LM
from pophood.phrases import later, phrase
from pophood.table import Table

Ids = tuple[int, ...]
STOP = "."  # appended to both sentences, so that the same token attends to the same words


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of two sentences, either with positions or with positions set to zero."""

    shared_rows: int  # number of input rows of block 0 that occur in both sentences
    end: float  # largest difference of block 0's attention at a closing full stop
    size: float  # largest magnitude of that attention
    inside: float | None  # largest difference at `WordOrder.inside`


@dataclass(frozen=True, slots=True)
class WordOrder:
    """Two sentences, token by token, and the differences by which the model can distinguish them."""

    sentences: tuple[str, str]
    tokens: tuple[tuple[str, ...], tuple[str, ...]]
    same_row: tuple[bool, ...]  # for each position, whether the row (with positions) is the same in both
    inside: int | None  # the first position with the same token but different tokens before it
    zeroed: str  # "position vectors" or "rotary angles", which were set to zero
    with_positions: Compared
    without: Compared

    def rows_table(self) -> Table:
        """Return for each position the two tokens, and whether the input rows of block 0 are equal."""
        rows = zip(*self.tokens, self.same_row, strict=True)
        numbered = tuple((position, *row) for position, row in enumerate(rows))
        return Table(("position", "first", "second", "same_row"), numbered)

    def table(self) -> Table:
        """Return the measurements, with positions and with positions set to zero."""
        attention = phrase("largest difference of block 0's attention at")
        measured = {
            "shared_rows": phrase(
                "rows before block 0 that both sentences have, of {rows}", rows=len(self.same_row)
            ),
            "end": phrase("{attention} a closing {stop!r}", attention=attention, stop=STOP),
        }
        if self.inside is not None:
            measured["inside"] = f"{attention} {self.tokens[0][self.inside]!r}"
        measured["size"] = phrase("largest magnitude of that attention")
        pair = (self.with_positions, self.without)
        return Table(
            ("measured", "with_positions", "positions_set_to_zero"),
            tuple((label, *(getattr(one, name) for one in pair)) for name, label in measured.items()),
            title=phrase("{first!r} against {second!r}", first=self.sentences[0], second=self.sentences[1]),
            decimals={"with_positions": 6, "positions_set_to_zero": 6},
        )

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        here, gone, rows = self.with_positions, self.without, len(self.same_row)
        return phrase(
            "With the {zeroed} set to zero, both sentences are the same set of {same} "
            "rows, and block 0's attention at a closing {stop!r} is the same (difference "
            "{gone:.0e}); with positions, {shared} of {rows} rows are shared, and the "
            "attention differs ({here:.2g}).",
            zeroed=phrase(self.zeroed),
            same=gone.shared_rows,
            stop=STOP,
            gone=gone.end,
            shared=here.shared_rows,
            rows=rows,
            here=here.end,
        )

    @property
    def left(self) -> str | None:
        """A sentence about the order that the causal mask alone reveals, if the sentences show it."""
        if self.inside is None or self.without.inside is None:
            return None
        return phrase(
            "Without positions, some order remains, since a token sees only the tokens "
            "before it. At {token!r} (position {inside}) block 0's attention differs even "
            "without positions ({difference:.2g}), and later blocks can use that.",
            token=self.tokens[0][self.inside],
            inside=self.inside,
            difference=self.without.inside,
        )


def compare(lm: LM, sentences: tuple[str, str]) -> WordOrder:
    """Compare two sentences; BadInput unless they are the same tokens in a different order."""
    first, second = (tuple(lm.tokenize(sentence)) for sentence in sentences)
    if Counter(first) != Counter(second) or first == second:
        raise BadInput(
            f"{sentences[0]!r} and {sentences[1]!r} are not the same tokens in a different order: give two"
            " sentences that begin with the same word and differ only in the order of the others"
        )
    stop = tuple(lm.tokenize(STOP, add_start=False))
    if len(first + stop) > lm.config.n_positions:
        raise BadInput(
            f"the sentences have {len(first):,} tokens; wanted fewer than {lm.config.n_positions:,}"
        )
    spell = lm.bundle.tokenizer.token_text
    a, b = (rows_before(lm.weights, lm.config, ids, True) for ids in (first, second))
    inside = _same_token_other_past(first, second)
    return WordOrder(
        sentences,
        (tuple(map(spell, first)), tuple(map(spell, second))),
        tuple(bool(np.array_equal(x, y)) for x, y in zip(a, b, strict=True)),
        inside,
        later("position vectors") if lm.config.rope is None else later("rotary angles"),
        *(_compared(lm, (first, second), stop, inside, positions) for positions in (True, False)),
    )


def _same_token_other_past(first: Ids, second: Ids) -> int | None:
    places = range(1, len(first))
    matches = (i for i in places if first[i] == second[i] and Counter(first[:i]) != Counter(second[:i]))
    return next(matches, None)


def _compared(lm: LM, pair: tuple[Ids, Ids], stop: Ids, inside: int | None, positions: bool) -> Compared:
    weights, config = lm.weights, lm.config

    def attention(ids: Ids) -> Floats:
        return last_attention(weights, config, ids, positions, lm.engine.context)[1]

    rows = [rows_before(weights, config, ids, positions) for ids in pair]
    bags = [Counter(row.tobytes() for row in half) for half in rows]
    one, other = (attention(ids + stop) for ids in pair)
    within = None
    if inside is not None:
        before, after = (attention(ids[: inside + 1]) for ids in pair)
        within = float(np.abs(before - after).max())
    return Compared(
        (bags[0] & bags[1]).total(),
        float(np.abs(one - other).max()),
        float(np.abs(np.stack([one, other])).max()),
        within,
    )
