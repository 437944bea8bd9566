"""Choosing a token for each row that the engine returned: records, samples, and the base of both loops.

`loop.py` continues one prompt, in one or several samples; `batch.py` continues several prompts. Both feed the
engine; here a row becomes a token with its text, and a sample ends.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

from pophood.generate.prefix import Decoder
from pophood.generate.settings import GenerateSettings
from pophood.generate.stops import StopStrings
from pophood.sampling import Choice, Likeliest, chain, draw_seed, measures, ranked
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
    `logit`, `probability`, `entropy` (nats) and `top` are the model's, before any sampling step;
    `final_probability` is the one that the token was drawn with. `seconds` count from the beginning of the
    run. `finish` is set on the last token of a sample.
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

    @property
    def chance(self) -> float:
        """The old name of `final_probability`, until version 0.3."""
        warnings.warn("Token.chance is now Token.final_probability", DeprecationWarning, stacklevel=2)
        return self.final_probability


@dataclass(slots=True)
class Sample:
    """One unfinished sample: the prompt and the tokens that were chosen, and the engine's sequence of them.

    `number` is the one that its tokens have, `drawn_as` the one that its random numbers belong to.
    """

    number: int
    drawn_as: int
    sequence: int
    ids: list[int]
    stream: TextStream
    stops: StopStrings
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


@dataclass(eq=False, repr=False)
class Chooser(Iterator[Token]):
    """A running generation without its loop, which `_generate` is in a subclass.

    Iterate over its tokens; `close` it, or leave a `with`, to stop early. `seed` repeats the run. `timings`
    grow during the run. `finishes` maps the number of a sample to the reason why it ended.
    """

    _engine: Decoder
    _tokenizer: Tokenizer
    settings: GenerateSettings
    _cancel: Any
    timings: Timings = field(default_factory=Timings, kw_only=True)
    finishes: dict[int, Finish] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        settings, stops = self.settings, self._tokenizer.stops
        self.seed = draw_seed() if settings.seed is None else settings.seed
        self._chain = chain(settings.sampling)
        # Not a set of all stops: listing them renders the chat template, which most texts never need.
        self._stop_ids: Collection[int] = stops if settings.stop_ids is None else frozenset(settings.stop_ids)
        self._likeliest = self._count_likeliest()
        self._began = time.perf_counter()
        self._tokens = self._generate()

    def _generate(self) -> Generator[Token, None, None]:
        raise NotImplementedError

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Stop, and drop every sequence of the run, except one that the prefix cache keeps."""
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- rows and tokens ----

    def _count_likeliest(self) -> int | None:
        """Return how many of each row's likeliest tokens the run needs; None if it needs whole rows."""
        reach = self._chain.reach
        if reach is None:
            return None
        forbidden = len(self._forbidden) if self.settings.sampling.min_tokens else 0
        shown = self.settings.top if self.settings.details == "top" else 0
        needed = min(max(reach + forbidden, shown), self._engine.config.vocab_size)
        return needed if needed <= MOST_LIKELIEST else None

    def rows(self, batch: list[tuple[int, Sequence[int]]]) -> list[Floats | Likeliest]:
        """Append tokens to sequences; return the logits [V] after the last of each, or the likeliest."""
        if self._likeliest is None:
            return list(self._engine.logits(batch, cancel=self._cancel))
        found = self._engine.summary(batch, self._likeliest, cancel=self._cancel)
        measured = zip(found.ids, found.logits, found.log_mass.tolist(), found.entropy.tolist(), strict=True)
        return [Likeliest(*row) for row in measured]

    def next_token(self, sample: Sample, row: Floats | Likeliest) -> Token:
        began = time.perf_counter()
        position = len(sample.ids)
        choice = self._chain.choose(
            row,
            sample.ids,
            seed=self.seed,
            sample=sample.drawn_as,
            position=position,
            forbidden=self._forbidden if sample.length < self.settings.sampling.min_tokens else (),
        )
        sample.ids.append(choice.id)
        sample.length += 1
        text = self._show(sample, choice.id)
        token = self._record(sample, row, choice, text, position)
        if sample.length > 1:
            self.timings.decode_seconds += time.perf_counter() - began
            self.timings.decode_tokens += 1
        return token

    def _show(self, sample: Sample, token: int) -> str:
        """Decide whether the sample ends with this token, and return the text that can be shown now."""
        stopped = token in self._stop_ids
        text = "" if stopped and not self.settings.special else sample.stream.push(token)
        if stopped:
            sample.finish = "stop"
        elif sample.length == self.settings.max_tokens:
            sample.finish = "length"
        elif len(sample.ids) > self._engine.context:
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

    def _record(
        self, sample: Sample, row: Floats | Likeliest, choice: Choice, text: str, position: int
    ) -> Token:
        probability = entropy = top = None
        if self.settings.details != "plain":
            log_mass, entropy = (row.log_mass, row.entropy) if isinstance(row, Likeliest) else measures(row)
            probability = math.exp(choice.logit - log_mass)
            if self.settings.details == "top":
                top = tuple(
                    (i, self._tokenizer.token_text(i), x, math.exp(x - log_mass))
                    for i, x in _top(row, self.settings.top)
                )
        return Token(
            id=choice.id,
            text=text,
            position=position,
            sample=sample.number,
            logit=choice.logit,
            probability=probability,
            entropy=entropy,
            top=top,
            seconds=time.perf_counter() - self._began,
            finish=sample.finish,
            final_probability=choice.final_probability,
        )

    def new_sample(self, number: int, drawn_as: int, sequence: int, prompt: Sequence[int]) -> Sample:
        """Return a sample that continues a prompt."""
        specials = self._tokenizer.specials
        continues = any(token not in specials for token in prompt)
        stream = TextStream(
            self._tokenizer, self.settings.special, continues=continues, shown=self.settings.shown
        )
        return Sample(number, drawn_as, sequence, list(prompt), stream, StopStrings(self.settings.stop))

    @cached_property
    def _forbidden(self) -> tuple[int, ...]:
        """The stops that cannot be drawn before `min_tokens`."""
        return tuple(sorted(i for i in self._stop_ids if i < self._engine.config.vocab_size))


def _top(row: Floats | Likeliest, k: int) -> list[tuple[int, float]]:
    """Return the ids and logits of the k likeliest tokens of a row."""
    if isinstance(row, Likeliest):
        return list(zip(row.ids[:k].tolist(), row.logits[:k].tolist(), strict=True))
    places = ranked(row, k)
    return list(zip(places.tolist(), row[places].tolist(), strict=True))
