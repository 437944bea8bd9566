"""Hidden states: the tensor (batch, sequence, features) at every layer: shapes, lengths, first numbers.

The talk's page 14: the hidden states have the same shape at every layer. `residual` shows what layers add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.look.arguments import trace_text
from pophood.look.blocks import Block, Heat
from pophood.look.math.model_parts import shape_text
from pophood.look.source import PROMPT, model_title
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.phrases import phrase
from pophood.table import Table, count

FIRST = 6  # features shown of each vector


@dataclass(frozen=True, eq=False)
class HiddenView(View):
    """The hidden state of every token before the blocks, after each of them, and after the final norm."""

    places: tuple[str, ...]  # [P]: "embedding", "block 0" ..., "final norm"
    states: NDArray[np.float32]  # [P, T, C]
    array_names = ("states", "lengths")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (batch, sequence, features), which is the same at every place."""
        return (1, self.states.shape[1], self.states.shape[2])

    @property
    def lengths(self) -> NDArray[np.float32]:
        """The Euclidean length of every token's vector at every place: [P, T]."""
        return np.asarray(np.linalg.norm(self.states.astype(np.float64), axis=-1), np.float32)

    @property
    def log_lengths(self) -> NDArray[np.float32]:
        """The base-10 logarithm of the lengths, transposed for pictures: [T, P]."""
        return np.asarray(np.log10(np.maximum(self.lengths.T, 1e-6)), np.float32)

    @property
    def headline(self) -> str:
        return phrase(
            "Hidden states of {model}: {shape} at every layer, and the length of each token's vector",
            model=model_title(self.source.model),
            shape=shape_text(self.shape),
        )

    @property
    def alt(self) -> str:
        lengths, (_, tokens, features) = self.lengths, self.shape
        place, token = np.unravel_index(int(lengths.argmax()), lengths.shape)
        return phrase(
            "Heat map of {tokens} by {places} in the model ({blocks}). Every token is a "
            "vector of {features:,} numbers at each place. Median length {first:.1f} at "
            "the {start} and {last:.1f} after {end}; the longest, {longest:.1f}, is "
            "{token!r} at {where}.",
            tokens=count(tokens, "token"),
            places=count(len(self.places), "place"),
            blocks=count(len(self.places) - 2, "block"),
            features=features,
            first=np.median(lengths[0]),
            start=self.places[0],
            last=np.median(lengths[-2]),
            end=self.places[-2],
            longest=lengths[place, token],
            token=self.source.tokens[token],
            where=self.places[place],
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = [
            phrase(
                "Batch is 1 (one text), sequence is its number of tokens, and features is the "
                "hidden size, which never changes."
            ),
            phrase(
                "`output_hidden_states` of transformers is the same list without the last "
                "block's row: its last entry is the output of the final norm."
            ),
        ]
        middle = self.lengths[1:-2]
        if middle.size and (middle[:, 0] > 10 * np.median(middle, axis=1)).any():
            notes.append(
                phrase(
                    "The first token's vector is many times longer than the others: attention uses "
                    "it as a sink."
                )
            )
        return tuple(notes)

    def tables(self) -> dict[str, Table]:
        """Return `shapes` (one row per place) and `numbers` (length and first features of every token)."""
        shapes = tuple(
            (place, shape_text(self.shape), float(np.median(row)), float(row.min()), float(row.max()))
            for place, row in zip(self.places, self.lengths, strict=True)
        )
        columns = ("place", "shape", "median_length", "shortest", "longest")
        places = dict.fromkeys(columns[2:], 2)
        return {
            "shapes": Table(columns, shapes, title=phrase("(batch, sequence, features)"), decimals=places),
            "numbers": self._numbers(),
        }

    def picture(self) -> tuple[Block, ...]:
        values, title = self.log_lengths, phrase("Length of each token's vector")
        ends = (float(values.min()), float(values.max()))
        heat = Heat(title, values, self.source.tokens, self.places, *ends, phrase("log10 of the length"))
        return (self.tables()["shapes"], heat, self._numbers(-1))

    def _numbers(self, start: int = 0) -> Table:
        """Return the length and the first features of the tokens from position `start` on."""
        features = tuple(f"x{i}" for i in range(min(FIRST, self.shape[2])))
        rows = tuple(
            (place, position, token, float(lengths[position]), *map(float, state[position, :FIRST]))
            for place, state, lengths in zip(self.places, self.states, self.lengths, strict=True)
            for position, token in list(enumerate(self.source.tokens))[start:]
        )
        title = phrase("the first {shown} of {all:,} features", shown=len(features), all=self.shape[2])
        columns = ("place", "position", "token_text", "length", *features)
        return Table(columns, rows, title=title, decimals={"length": 2})


def hidden(lm: LM, text: Text = PROMPT) -> HiddenView:
    """Return the hidden states of a text, [places, tokens, features]: before, between and after the blocks.

    Raises BadInput for an empty text, ContextOverflow for one that is too long.

        hidden(lm, "The capital of Spain is").shape     # (1, 5, 768) for GPT-2 small
    """
    source, trace = trace_text(lm, text, ["blocks.0.resid_pre", "blocks.*.resid_post", "final_norm"])
    blocks = trace.layers("resid_post")
    states = np.concatenate([trace["blocks.0.resid_pre"][None], blocks, trace["final_norm"][None]])
    places = (
        phrase("embedding"),
        *(phrase("block {block}", block=i) for i in range(len(blocks))),
        phrase("final norm"),
    )
    return HiddenView(source, places, states)
