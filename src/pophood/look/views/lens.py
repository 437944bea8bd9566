"""Logit lens: the token that the model would choose if it stopped after each block.

    resid_post of block i [T, C] -> final norm -> @ W_O -> softmax -> the guess after block i

Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.arguments import checked_position, last_row, source_of
from pophood.look.blocks import Block, Heat
from pophood.look.math.unembed import Floats, Unembed, agreement, token_of
from pophood.look.source import PROMPT, quoted, quoted_end
from pophood.look.view import View
from pophood.look.views.surprise import place_of
from pophood.model.lm import LM, Text
from pophood.phrases import phrase
from pophood.sampling.softmax import log_sum_exp
from pophood.table import Table, count

ROWS = 64  # logit rows held at once: 13 MB at GPT-2's vocabulary
MOST_POSITIONS = 32  # most columns of the map; for a longer text, some positions are left out
FEW = 8  # most positions whose guesses fit on a terminal


@dataclass(frozen=True, eq=False)
class LensView(View):
    """The guess after every block: `guesses`, `logits`, `probabilities` [L, P] at the P `positions`.

    `ranks` and `chances` [L] are those of the token `target` at `position`; `difference` is the largest
    difference between the last row's logits and the engine's own.
    """

    positions: tuple[int, ...]
    guesses: NDArray[np.int64]
    guess_texts: tuple[tuple[str, ...], ...]
    logits: Floats
    probabilities: Floats
    position: int
    target: int
    target_text: str
    chosen: bool  # whether the caller gave `target`; otherwise it is the model's final choice
    ranks: NDArray[np.int64]
    chances: Floats
    difference: float
    array_names = ("positions", "guesses", "logits", "probabilities", "ranks", "chances")

    @property
    def column(self) -> int:
        """The index of `position` among `positions`."""
        return self.positions.index(self.position)

    @property
    def settled(self) -> int | None:
        """The first block from which `target` remains the guess; None if it is not the final guess."""
        wrong = np.flatnonzero(self.ranks != 1)
        if not len(wrong):
            return 0
        after = int(wrong[-1]) + 1
        return after if after < len(self.ranks) else None

    @property
    def before(self) -> str:
        """The text up to the position, in quotes; unless that is the whole text, joined from its tokens."""
        tokens = self.source.tokens
        whole = self.position + 1 == len(tokens)
        return quoted_end(self.source.text if whole else "".join(tokens[: self.position + 1]))

    @property
    def headline(self) -> str:
        what = phrase(
            "After {before}, {target_text}", before=self.before, target_text=quoted(self.target_text)
        )
        if self.settled is None:
            return phrase(
                "{what} has rank {rank:,} after the last block (logit lens of {model})",
                what=what,
                rank=self.ranks[-1],
                model=self.source.model,
            )
        return phrase(
            "{what} is the guess from block {settled} on (logit lens of {model})",
            what=what,
            settled=self.settled,
            model=self.source.model,
        )

    @property
    def alt(self) -> str:
        last = len(self.ranks) - 1
        at, target = self.column, quoted(self.target_text)
        path = "; ".join(
            phrase(
                "block {block} {guess}, {target} has rank {rank:,}",
                block=i,
                guess=quoted(self.guess_texts[i][at]),
                target=target,
                rank=self.ranks[i],
            )
            for i in sorted({0, last // 4, last // 2, 3 * last // 4, last})
        )
        return phrase(
            "A map of {blocks} by {positions}: each cell has the token that the model "
            "would choose after that block, coloured by its probability. Beside it, the "
            "probability and rank of the followed token at position {position}: {path}.",
            blocks=count(len(self.ranks), "block"),
            positions=count(len(self.positions), "position"),
            position=self.position,
            path=path,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        notes = (
            phrase(
                "The logit lens (nostalgebraist 2020) applies the final norm and W_O to every "
                "block's output. They were trained for the last block alone, so early rows are "
                "only a reading aid."
            ),
            phrase(
                "The last row is the model's real output: the largest difference from the "
                "engine's logits is {difference}.",
                difference=agreement(self.difference),
            ),
        )
        if len(self.positions) == len(self.source.ids):
            return notes
        shown = phrase(
            "{shown} of {positions}",
            shown=len(self.positions),
            positions=count(len(self.source.ids), "position"),
        )
        return (*notes, phrase("The map shows {shown}, evenly spaced, including the last one.", shown=shown))

    def tables(self) -> dict[str, Table]:
        """Return `blocks` (at one position), `guesses` and `probabilities` (at all positions of the map)."""
        columns = ("block", "guess_id", "guess_text", "logit", "probability", "token_rank")
        at = self.column
        rows = tuple(
            (
                *(i, int(self.guesses[i, at]), self.guess_texts[i][at]),
                *(float(self.logits[i, at]), float(self.probabilities[i, at])),
                *(int(self.ranks[i]), float(self.chances[i])),
            )
            for i in range(len(self.ranks))
        )
        places = tuple(f"{p} {self.source.tokens[p]!r}" for p in self.positions)
        guesses = tuple((i, *texts) for i, texts in enumerate(self.guess_texts))
        shares = tuple((i, *map(float, row)) for i, row in enumerate(self.probabilities))
        return {
            "blocks": Table(
                (*columns, "token_probability"),
                rows,
                bars="token_probability",
                title=phrase(
                    "the guess of every block after {before}, and the token {target_text!r}",
                    before=self.before,
                    target_text=self.target_text,
                ),
                decimals={"logit": 2},
            ),
            "guesses": Table(("block", *places), guesses, title=phrase("the guess after every block")),
            "probabilities": Table(("block", *places), shares, title=phrase("its probability")),
        }

    def picture(self) -> tuple[Block, ...]:
        rows = tuple(phrase("block {block}", block=i) for i in range(len(self.ranks)))[::-1]
        columns = tuple(self.source.tokens[p] for p in self.positions)
        scale = phrase("probability of the guess after that block")
        heat = Heat(phrase("logit lens"), self.probabilities[::-1], rows, columns, 0.0, 1.0, scale)
        tables = self.tables()
        return (tables["blocks"], heat, *([tables["guesses"]] if len(self.positions) <= FEW else []))


def lens(
    lm: LM,
    text: Text = PROMPT,
    *,
    token: str | int | None = None,
    position: int = -1,
    most: int = MOST_POSITIONS,
) -> LensView:
    """Show the guess after every block, at up to `most` positions, and follow one token at `position`.

    `token` is the text of one token or an id (default: the model's final choice there); a negative
    `position` counts from the end. Only a few rows of logits exist at a time. Raises BadInput and
    ContextOverflow.

        look.lens(lm, "The capital of Spain is", token=" Madrid").ranks
    """
    target = None if token is None else token_of(lm, token)
    source = source_of(lm, text)
    at = checked_position(position, source)
    if most < 2:
        raise BadInput(f"most must be at least 2 positions, got {most}")
    positions = _thinned(len(source.ids), most, at)
    engine_logits, taps = last_row(lm, source, ["blocks.*.resid_post"])
    hidden = np.stack([block[list(positions)] for block in taps.values()])  # [L, P, C]
    layers, places, features = hidden.shape
    unembed = Unembed.of(lm)
    normed = unembed.norm(hidden.reshape(-1, features))
    ids, logits, probabilities = _guesses(unembed, normed)
    guesses = ids.reshape(layers, places)
    there = unembed.logits(normed[positions.index(at) :: places])  # [L, V] at the one position
    if target is None:
        target = int(there[-1].argmax())
    scored = [place_of(row, target) for row in there]
    last = unembed.logits(normed[-1:])[0]
    spell = lm.bundle.tokenizer.token_text
    return LensView(
        source,
        positions=positions,
        guesses=guesses,
        guess_texts=tuple(tuple(map(spell, row)) for row in guesses.tolist()),
        logits=logits.reshape(layers, places),
        probabilities=probabilities.reshape(layers, places),
        position=at,
        target=target,
        target_text=spell(target),
        chosen=token is not None,
        ranks=np.array([rank for _, rank in scored]),
        chances=np.exp(np.array([chance for chance, _ in scored], np.float32)),
        difference=float(np.abs(last - engine_logits).max()),
    )


def _guesses(unembed: Unembed, normed: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return the likeliest token of every row, its logit and its probability, [N] each."""
    ids, logits, probabilities = [], [], []
    for start in range(0, len(normed), ROWS):
        for row in unembed.logits(normed[start : start + ROWS]):
            guess = int(row.argmax())
            ids.append(guess)
            logits.append(row[guess])
            probabilities.append(np.exp(float(row[guess]) - log_sum_exp(row)))
    return np.array(ids), np.array(logits, np.float32), np.array(probabilities, np.float32)


def _thinned(length: int, most: int, wanted: int) -> tuple[int, ...]:
    """Return all positions of a short text, or `most` evenly spaced ones with the last and the wanted one.

    >>> _thinned(5, 10, 4), _thinned(9, 3, 5)
    ((0, 1, 2, 3, 4), (0, 5, 8))
    """
    if length <= most:
        return tuple(range(length))
    spread = np.unique(np.linspace(0, length - 1, most).round().astype(int)).tolist()
    if wanted not in spread:
        nearest = min(spread[:-1], key=lambda place: abs(place - wanted))
        spread[spread.index(nearest)] = wanted
    return tuple(sorted(spread))
