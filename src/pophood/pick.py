"""Picker: a text whose tokens the caller picks one by one among the likeliest. It does no input or output.

    options -> pick(number) -> options -> ... -> back() -> options of the step before

Going back truncates the sequence and restores that step's options without computing anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pophood.errors import BadInput
from pophood.model.engine import Engine
from pophood.sampling.softmax import Floats, log_sum_exp, ranked
from pophood.text.tokenizer import TextStream, Tokenizer

SHOWN = 10
End = Literal["stop", "length", "context"]


@dataclass(frozen=True, slots=True)
class TokenOption:
    """One of the likeliest next tokens, with the model's logit and probability before sampling settings."""

    id: int
    text: str
    logit: float
    probability: float


@dataclass(frozen=True, slots=True)
class Pick:
    """One picked token: the `number`-th of the `options`, counted from 1."""

    number: int
    options: tuple[TokenOption, ...]

    @property
    def option(self) -> TokenOption:
        """The picked option."""
        return self.options[self.number - 1]


class Picker:
    """A text picked token by token. `options` are the likeliest next tokens, `picks` the path so far.

    `ended` is the reason why no token can follow: a stop token, the limit of `most` tokens, or a full context
    window. `close`, or the end of a `with` block, frees the sequence.

        with Picker(lm.engine, lm.bundle.tokenizer, lm.tokenize("The capital of Spain is")) as picker:
            picker.pick(2); picker.back(); picker.pick(1); print(picker.text)
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        *,
        shown: int = SHOWN,
        most: int | None = None,
        special: bool = False,
    ) -> None:
        self.prompt_ids = tuple(prompt_ids)
        self._engine = engine
        self._tokenizer = tokenizer
        self._shown = min(shown, engine.config.vocab_size)
        self._most = most
        self._special = special
        self._picks: list[Pick] = []
        self._sequence = engine.new_sequence()
        try:
            self.options = self._options(engine.logits([(self._sequence, list(self.prompt_ids))])[0])
        except BaseException:
            self.close()
            raise

    @property
    def picks(self) -> tuple[Pick, ...]:
        """The picks so far."""
        return tuple(self._picks)

    @property
    def ended(self) -> End | None:
        """The reason why no token can follow, or None."""
        if self._picks and self._picks[-1].option.id in self._tokenizer.stops:
            return "stop"
        if len(self._picks) == self._most:
            return "length"
        return "context" if len(self.prompt_ids) + len(self._picks) > self._engine.context else None

    @property
    def text(self) -> str:
        """The text of the picks in whole characters, without special tokens unless `special` is set."""
        continues = any(token not in self._tokenizer.specials for token in self.prompt_ids)
        stream = TextStream(self._tokenizer, self._special, continues=continues)
        stops = () if self._special else self._tokenizer.stops
        pieces = [stream.push(pick.option.id) for pick in self._picks if pick.option.id not in stops]
        return "".join([*pieces, stream.flush()])

    @property
    def probability(self) -> float:
        """The probability of the whole path: the product of its tokens' probabilities (1 if it is empty)."""
        return math.prod(pick.option.probability for pick in self._picks)

    def pick(self, number: int = 1) -> Pick:
        """Pick the `number`-th option. Raises BadInput if there is no such option or the text has ended."""
        if self.ended is not None:
            raise BadInput(f"the text has ended ({self.ended}): go back, or end")
        if not 1 <= number <= len(self.options):
            raise BadInput(f"there is no number {number}: wanted 1 to {len(self.options)}")
        pick = Pick(number, self.options)
        self._picks.append(pick)
        if self.ended is None:
            try:
                row = self._engine.logits([(self._sequence, [pick.option.id])])[0]
            except BaseException:
                self._picks.pop()  # the engine has restored its sequence, too
                raise
            self.options = self._options(row)
        return pick

    def back(self) -> Pick:
        """Remove the last pick and return it. Raises BadInput at the beginning."""
        if not self._picks:
            raise BadInput("this is the beginning: there is nothing to go back to")
        pick = self._picks.pop()
        self.options = pick.options
        length = len(self.prompt_ids) + len(self._picks)
        if self._engine.length(self._sequence) > length:
            self._engine.truncate(self._sequence, length)
        return pick

    def close(self) -> None:
        """Free the sequence."""
        sequence, self._sequence = self._sequence, -1
        if sequence >= 0:
            self._engine.drop(sequence)

    def __enter__(self) -> Picker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _options(self, row: Floats) -> tuple[TokenOption, ...]:
        mass = log_sum_exp(row)
        spell = self._tokenizer.token_text
        return tuple(
            TokenOption(i, spell(i), float(row[i]), math.exp(float(row[i]) - mass))
            for i in ranked(row, self._shown).tolist()
        )
