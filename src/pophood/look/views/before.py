"""The input of the first block: token row + position row = first hidden state (the talk's page 21).

A model with rotary positions adds nothing: its first hidden state is the token row itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.look.arguments import trace_text
from pophood.look.blocks import Block, Heat
from pophood.look.source import PROMPT, model_title
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.phrases import later, phrase
from pophood.table import Table, count

SHOWN = 12  # features in tables and on a terminal
DRAWN = 32  # features in the picture
SIGNS = {
    later("position row"): later("+ position row"),
    later("first hidden state"): later("= first hidden state"),
}


@dataclass(frozen=True, eq=False)
class BeforeView(View):
    """The rows that are added, and the input of block 0: [T, C] each."""

    token: NDArray[np.float32]
    position: NDArray[np.float32] | None  # None with rotary positions
    first: NDArray[np.float32]
    scale: float  # the model multiplies token rows by it
    array_names = ("token", "first", "position")

    @property
    def difference(self) -> float:
        """The largest difference between token row + position row and the first hidden state."""
        total = self.token if self.position is None else self.token + self.position
        return float(np.abs(total - self.first).max())

    @property
    def agreement(self) -> str:
        """The difference in words."""
        return (
            phrase("largest difference {difference:.0e}", difference=self.difference)
            if self.difference
            else phrase("exactly, bit for bit")
        )

    @property
    def rows(self) -> tuple[tuple[str, NDArray[np.float32]], ...]:
        """The names and rows of the summands and of the sum, in order."""
        position = () if self.position is None else (("position row", self.position),)
        return ((later("token row"), self.token), *position, ("first hidden state", self.first))

    @property
    def reach(self) -> float:
        """The end of the colour scale on both sides of 0; 98 % of the drawn values lie within."""
        drawn = np.concatenate([values[:, :DRAWN].ravel() for _, values in self.rows])
        return float(np.percentile(np.abs(drawn), 98)) or 1.0

    @property
    def headline(self) -> str:
        tokens, features = self.first.shape
        what = phrase("the token rows alone") if self.position is None else phrase("token row + position row")
        return phrase(
            "What enters block 0 of {model}: {what}, ({tokens}, {features})",
            model=model_title(self.source.model),
            what=what,
            tokens=tokens,
            features=features,
        )

    @property
    def alt(self) -> str:
        parts = ", ".join(
            phrase("{name} of length {length:.2f}", name=phrase(name), length=np.linalg.norm(values[-1]))
            for name, values in self.rows
        )
        sign = phrase("equals") if self.position is None else phrase("their sum equals")
        return phrase(
            "Heat maps of the first {features} of {all} features of {tokens}. For "
            "{last!r}: {parts}; {sign} the input of block 0 in the engine ({agreement}).",
            features=self._features(DRAWN),
            all=self.first.shape[1],
            tokens=count(len(self.first), "token"),
            last=self.source.tokens[-1],
            parts=parts,
            sign=sign,
            agreement=self.agreement,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        multiplied = self.scale != 1
        scaled = (
            phrase("This model multiplies the rows of the token matrix by {scale:.6g}.", scale=self.scale),
        ) * multiplied
        end = phrase(
            "The colours end at {reach:.2g} on both sides of 0; larger values have the last colour.",
            reach=self.reach,
        )
        if self.position is None:
            return (
                phrase(
                    "This model adds no position rows: its positions are rotary and act inside "
                    "attention (see positions)."
                ),
                *scaled,
                end,
            )
        return (
            phrase("token row + position row = first hidden state: {agreement}.", agreement=self.agreement),
            *scaled,
            end,
        )

    def tables(self) -> dict[str, Table]:
        """Return `lengths` (of every token's rows) and `features` (the first numbers of each row)."""
        names = tuple(name.replace(" ", "_") for name, _ in self.rows)
        tokens = list(zip(self.source.ids, self.source.tokens, strict=True))
        lengths = tuple(
            (i, id_, text, *(float(np.linalg.norm(values[i].astype(np.float64))) for _, values in self.rows))
            for i, (id_, text) in enumerate(tokens)
        )
        features = tuple(
            (i, text, feature, *(float(values[i, feature]) for _, values in self.rows))
            for i, (_, text) in enumerate(tokens)
            for feature in range(self._features(SHOWN))
        )
        columns = ("position", "token_id", "token_text", *names)
        return {
            "lengths": Table(columns, lengths, title=phrase("Length of each row")),
            "features": Table(("position", "token_text", "feature", *names), features),
        }

    def picture(self) -> tuple[Block, ...]:
        count = self._features(SHOWN)
        columns = tuple(str(feature) for feature in range(count))
        colours = (
            -self.reach,
            self.reach,
            phrase("value of each of the first {count} features", count=count),
            True,
        )
        heats = tuple(
            Heat(phrase(SIGNS.get(name, name)), values[:, :count], self.source.tokens, columns, *colours)
            for name, values in self.rows
        )
        return (*heats, self.tables()["lengths"])

    def _features(self, most: int) -> int:
        return min(most, len(self.first[0]))


def before(lm: LM, text: Text = PROMPT) -> BeforeView:
    """Return token row, position row and first hidden state of every token, from one pass of the engine.

    look.before(lm, "The capital of Spain is").tables()["lengths"]

    Raises BadInput for an empty text, ContextOverflow for one that is too long.
    """
    taps = ["embed.token", "embed.position", "blocks.0.resid_pre"]
    if lm.config.rope is not None:
        taps.remove("embed.position")
    source, trace = trace_text(lm, text, taps)
    position = trace["embed.position"] if lm.config.rope is None else None
    first = trace["blocks.0.resid_pre"]
    return BeforeView(source, trace["embed.token"], position, first, lm.config.embedding_scale)
