"""Choosing a token from a row of the model's output, and what becomes of it: text, a record, an end.

`Chooser` does this for the samples of one request; `scheduler.py` is the loop that feeds the engine.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from pophood.generate.inside import Inside
from pophood.generate.settings import GenerateSettings
from pophood.generate.stops import StopStrings
from pophood.grammar.matching import CompiledGrammar, Constraint, compiled
from pophood.sampling import Choice, Likeliest, chain, draw_seed, ranked
from pophood.sampling.softmax import Floats
from pophood.text.tokenizer import TextStream, Tokenizer

Finish = Literal["stop", "length", "context", "stop_string"]
Top = tuple[int, str, float, float]  # id, text, logit, probability

MOST_LIKELIEST = 1_024  # beyond, a whole row is as cheap
END_OF_TEXT = "<|endoftext|>"  # stands before every document that GPT-2 learned from, and for an empty prompt


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    `text` can be shown at once: text that may still become a stop string, or part of a character, comes with
    a later token. `position` is the token's index in the sequence, `sample` the number of its sample.
    `logit`, `probability`, `entropy` (nats) and `top` are the model's, before any sampling step, and
    `log_mass` is the log-sum-exp of its logits: a logit minus `log_mass` is a log-probability. With a
    grammar they are those of the tokens that it allows: a token that it forces has the probability 1.
    `final_probability` is the one that the token was drawn with. `seconds` count from the beginning of the
    run. `finish` is set on the last token of a sample. `inside` has the insides that were asked for.
    """

    id: int
    text: str
    position: int
    sample: int
    logit: float
    probability: float | None
    entropy: float | None
    top: tuple[Top, ...] | None
    seconds: float
    finish: Finish | None
    final_probability: float
    log_mass: float | None = None
    inside: Inside | None = None

    @property
    def log_probability(self) -> float | None:
        """The model's log-probability of the token in nats; None unless details were asked for."""
        return None if self.log_mass is None else self.logit - self.log_mass

    @property
    def chance(self) -> float:
        """The old name of `final_probability`, until version 0.3."""
        warnings.warn("Token.chance is now Token.final_probability", DeprecationWarning, stacklevel=2)
        return self.final_probability


@dataclass(slots=True)
class Sample:
    """One unfinished sample: the prompt and the tokens that were chosen, and the engine's sequence of them.

    Its random numbers belong to its `number`. `constraint` is what a grammar allows it.
    """

    number: int
    sequence: int
    ids: list[int]
    stream: TextStream
    stops: StopStrings
    constraint: Constraint | None = None
    length: int = 0  # tokens generated
    finish: Finish | None = None


@dataclass(slots=True)
class Timings:
    """Seconds spent computing, not counting what the consumer of the tokens does, and numbers of tokens."""

    prefill_seconds: float = 0.0
    prefill_tokens: int = 0
    decode_seconds: float = 0.0
    decode_tokens: int = 0  # without the first of each sample, which comes from the prefill

    @property
    def decode_rate(self) -> float | None:
        """New tokens per second over all samples."""
        measured = self.decode_tokens and self.decode_seconds
        return self.decode_tokens / self.decode_seconds if measured else None


class Row(NamedTuple):
    """The distribution after a token: its likeliest tokens, and all logits [V] where they are needed."""

    likeliest: Likeliest
    whole: Floats | None
    inside: Inside | None = None


class Chooser:
    """Chooses the tokens of one request's samples. `seed` repeats its choices.

    `likeliest` is how many of a row's likeliest tokens it needs, `whole` whether it needs all logits.
    """

    def __init__(
        self, tokenizer: Tokenizer, settings: GenerateSettings, vocab_size: int, context: int
    ) -> None:
        self.settings = settings
        self.timings = Timings()
        self.finishes: dict[int, Finish] = {}
        self.seed = draw_seed() if settings.seed is None else settings.seed
        self.began = time.perf_counter()
        self._tokenizer = tokenizer
        self._vocab_size, self._context = vocab_size, context
        self._chain = chain(settings.sampling)
        # Not a set of all stops: listing them renders the chat template, which most texts never need.
        self._stop_ids: Collection[int] = (
            tokenizer.stops if settings.stop_ids is None else frozenset(settings.stop_ids)
        )
        shown = settings.top if settings.details == "top" else 0
        if (inspect := settings.inspect) is not None:
            shown = max(shown, inspect.top, inspect.lens)
        forbidden = len(self._forbidden) if settings.sampling.min_tokens else 0
        self._grammar: CompiledGrammar | None = None
        if settings.grammar is not None:
            self._grammar = compiled(settings.grammar, tokenizer, vocab_size)
        reach = self._chain.reach
        needed = min(max(0 if reach is None else reach + forbidden, shown), vocab_size)
        self.whole = reach is None or needed > MOST_LIKELIEST
        self.likeliest = min(shown if self.whole else needed, MOST_LIKELIEST)

    def next_token(self, sample: Sample, row: Row) -> Token:
        """Choose the next token of a sample from the row after its last one."""
        began = time.perf_counter()
        position = len(sample.ids)
        choice = self._chain.choose(
            row.likeliest if row.whole is None else row.whole,
            sample.ids,
            seed=self.seed,
            sample=sample.number,
            position=position,
            forbidden=self._forbidden if sample.length < self.settings.sampling.min_tokens else (),
        )
        sample.ids.append(choice.id)
        sample.length += 1
        if sample.constraint is not None:
            sample.constraint.take(choice.id, self._room(sample))
        text = self._show(sample, choice.id)
        token = self._record(sample, row, choice, text, position)
        if sample.length > 1:
            self.timings.decode_seconds += time.perf_counter() - began
            self.timings.decode_tokens += 1
        return token

    def _room(self, sample: Sample) -> int:
        """Return how many tokens can be fed beside the newest one, with one left to be chosen after them."""
        room = self._context - len(sample.ids)
        if self.settings.max_tokens is not None:
            room = min(room, self.settings.max_tokens - sample.length - 1)
        return room

    def _show(self, sample: Sample, token: int) -> str:
        """Decide whether the sample ends with this token, and return the text that can be shown now."""
        stopped = token in self._stop_ids
        text = "" if stopped and not self.settings.special else sample.stream.push(token)
        if stopped or (sample.constraint is not None and sample.constraint.ended):
            sample.finish = "stop"
        elif sample.length == self.settings.max_tokens:
            sample.finish = "length"
        elif len(sample.ids) > self._context:
            sample.finish = "context"
        if sample.finish is not None:
            text += sample.stream.flush()
        if sample.length > self.settings.sampling.min_tokens:
            text = sample.stops.push(text)
            if sample.stops.found is not None:
                sample.finish = "stop_string"
            elif sample.finish is not None:
                text += sample.stops.flush()
        if sample.finish is not None:
            self.finishes[sample.number] = sample.finish
        return text

    def _record(self, sample: Sample, row: Row, choice: Choice, text: str, position: int) -> Token:
        probability = entropy = top = log_mass = None
        if self.settings.details != "plain":
            log_mass, entropy = row.likeliest.log_mass, row.likeliest.entropy
            probability = math.exp(choice.logit - log_mass)
        if self.settings.details == "top" and log_mass is not None:
            spell = self._tokenizer.token_text
            likeliest = _top(row, self.settings.top)
            top = tuple((i, spell(i), x, math.exp(x - log_mass)) for i, x in likeliest)
        return Token(
            id=choice.id,
            text=text,
            position=position,
            sample=sample.number,
            logit=choice.logit,
            probability=probability,
            entropy=entropy,
            top=top,
            seconds=time.perf_counter() - self.began,
            finish=sample.finish,
            final_probability=choice.final_probability,
            log_mass=log_mass,
            inside=row.inside,
        )

    def new_sample(self, number: int, sequence: int, prompt: Sequence[int]) -> Sample:
        """Return a sample that continues a prompt."""
        specials = self._tokenizer.specials
        continues = self._grammar is not None or any(token not in specials for token in prompt)
        stream = TextStream(
            self._tokenizer, self.settings.special, continues=continues, shown=self.settings.shown
        )
        stops = StopStrings(self.settings.stop)
        constraint = None if self._grammar is None else self._grammar.constraint(self._forbidden)
        return Sample(number, sequence, list(prompt), stream, stops, constraint)

    @cached_property
    def _forbidden(self) -> tuple[int, ...]:
        """The model's tokens that end a text, which cannot be drawn before `min_tokens`."""
        return tuple(sorted(i for i in self._stop_ids if i < self._vocab_size))


def _top(row: Row, k: int) -> list[tuple[int, float]]:
    """Return the ids and logits of the k likeliest tokens of a row, fewer if a grammar allows fewer."""
    if row.whole is None or len(row.likeliest.ids) >= min(k, len(row.whole)):
        return list(zip(row.likeliest.ids[:k].tolist(), row.likeliest.logits[:k].tolist(), strict=True))
    places = ranked(row.whole, k)
    ranks = zip(places.tolist(), row.whole[places].tolist(), strict=True)
    return [(id_, logit) for id_, logit in ranks if logit > -math.inf]
