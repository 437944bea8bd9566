"""The generation loop: prompt tokens in, a stream of `Token` records out.

    prefill once -> fork per sample -> [choose a token per sample -> show its text -> finish, or feed it back]

Samples are computed as one batch. Each draws its own random numbers and leaves the batch when it ends.
However a run ends (normally, by an error, by Ctrl-C, by closing the generator), every sequence is dropped but
the one that the PrefixCache keeps. The loop prints nothing and builds no prompts.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pophood.errors import BadInput
from pophood.generate.prefix import Decoder, PrefixCache
from pophood.generate.settings import GenerateSettings, Truncation, fit
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
class _Sample:
    """One unfinished sample. Its sequence holds all `ids` except the last, which is fed next."""

    number: int
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
class Run(Iterator[Token]):
    """A running generation. Iterate over its tokens; `close` it, or leave a `with`, to stop early.

    `seed` repeats the run. `prompt_ids` is the prompt as computed, `truncation` what was cut from it,
    `reused` how many of its tokens had been computed before. `timings` grow during the run. `finishes` maps
    the number of a sample to the reason why it ended.
    """

    _engine: Decoder
    _tokenizer: Tokenizer
    prompt_ids: tuple[int, ...]
    truncation: Truncation | None
    settings: GenerateSettings
    _prefix: PrefixCache | None
    _cancel: Any
    reused: int = 0
    timings: Timings = field(default_factory=Timings)
    finishes: dict[int, Finish] = field(default_factory=dict)
    _samples: list[_Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings, stops = self.settings, self._tokenizer.stops
        self.seed = draw_seed() if settings.seed is None else settings.seed
        self._chain = chain(settings.sampling)
        # Not a set of all stops: listing them renders the chat template, which most texts never need.
        self._stop_ids: Collection[int] = stops if settings.stop_ids is None else frozenset(settings.stop_ids)
        self._likeliest = self._count_likeliest()
        self._began = time.perf_counter()
        self._tokens = self._generate()

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Stop, and drop every sequence of the run, except one that the prefix cache keeps."""
        self._tokens.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- the loop ----

    def _generate(self) -> Generator[Token, None, None]:
        self._began = time.perf_counter()
        try:
            rows = self._prefill()
            live = list(self._samples)
            while live:
                for sample, row in zip(live, rows, strict=True):
                    yield self._next_token(sample, row)
                for sample in live:
                    if sample.finish is not None:
                        self._leave(sample)
                live = [sample for sample in live if sample.finish is None]
                if live:
                    rows = self._decode(live)
        finally:
            self._release()

    def _prefill(self) -> list[Floats | Likeliest]:
        """Compute the prompt once, fork it for every sample, and return the first row of each."""
        ids, settings, began = self.prompt_ids, self.settings, time.perf_counter()
        if self._prefix is None:
            sequence = self._engine.new_sequence()
        else:
            sequence, self.reused = self._prefix.take(ids)
        self._samples = [self._sample(settings.first_sample, sequence)]
        row = self._rows([(sequence, ids[self.reused :])])[0]
        for number in range(settings.first_sample + 1, settings.first_sample + settings.samples):
            self._samples.append(self._sample(number, self._engine.fork(sequence)))
        self.timings.prefill_seconds = time.perf_counter() - began
        self.timings.prefill_tokens = len(ids) - self.reused
        return [row] * settings.samples

    def _decode(self, live: list[_Sample]) -> list[Floats | Likeliest]:
        """Feed every live sample its last token and return the next row of each."""
        began = time.perf_counter()
        batch: list[tuple[int, Sequence[int]]] = [(sample.sequence, sample.ids[-1:]) for sample in live]
        rows = self._rows(batch)
        self.timings.decode_seconds += time.perf_counter() - began
        return rows

    def _count_likeliest(self) -> int | None:
        """Return how many of each row's likeliest tokens the run needs; None if it needs whole rows."""
        reach = self._chain.reach
        if reach is None:
            return None
        forbidden = len(self._forbidden) if self.settings.sampling.min_tokens else 0
        shown = self.settings.top if self.settings.details == "top" else 0
        needed = min(max(reach + forbidden, shown), self._engine.config.vocab_size)
        return needed if needed <= MOST_LIKELIEST else None

    def _rows(self, batch: list[tuple[int, Sequence[int]]]) -> list[Floats | Likeliest]:
        """Append tokens to sequences; return the logits [V] after the last of each, or the likeliest."""
        if self._likeliest is None:
            return list(self._engine.logits(batch, cancel=self._cancel))
        found = self._engine.summary(batch, self._likeliest, cancel=self._cancel)
        measured = zip(found.ids, found.logits, found.log_mass.tolist(), found.entropy.tolist(), strict=True)
        return [Likeliest(*row) for row in measured]

    def _next_token(self, sample: _Sample, row: Floats | Likeliest) -> Token:
        began = time.perf_counter()
        position = len(sample.ids)
        choice = self._chain.choose(
            row,
            sample.ids,
            seed=self.seed,
            sample=sample.number,
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

    def _show(self, sample: _Sample, token: int) -> str:
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
        self, sample: _Sample, row: Floats | Likeliest, choice: Choice, text: str, position: int
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

    @cached_property
    def _forbidden(self) -> tuple[int, ...]:
        """The stops that cannot be drawn before `min_tokens`."""
        return tuple(sorted(i for i in self._stop_ids if i < self._engine.config.vocab_size))

    # ---- samples and their sequences ----

    def _sample(self, number: int, sequence: int) -> _Sample:
        specials = self._tokenizer.specials
        continues = any(token not in specials for token in self.prompt_ids)
        stream = TextStream(
            self._tokenizer, self.settings.special, continues=continues, shown=self.settings.shown
        )
        return _Sample(number, sequence, list(self.prompt_ids), stream, StopStrings(self.settings.stop))

    def _leave(self, sample: _Sample) -> None:
        """Drop the sequence of a finished sample, unless the prefix cache will keep it."""
        if sample is self._samples[0] and self._prefix is not None:
            return
        self._samples = [other for other in self._samples if other is not sample]
        self._engine.drop(sample.sequence)

    def _release(self) -> None:
        """End the run: give the first sequence to the prefix cache, if there is one, and drop the others."""
        samples, self._samples = self._samples, []
        for sample in samples[0 if self._prefix is None else 1 :]:
            self._engine.drop(sample.sequence)
        if samples and self._prefix is not None:
            self._prefix.keep(samples[0].sequence, samples[0].ids)


def generate(
    engine: Decoder,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    settings: GenerateSettings | None = None,
    prefix: PrefixCache | None = None,
    cancel: Any = None,
) -> Run:
    """Continue a prompt: check the request and return a `Run`, an iterator of `Token` records.

    Raises BadInput for a token id outside the vocabulary and for an empty prompt if the model has no
    end-of-text token; ContextOverflow for a prompt longer than the window, unless `settings.truncate` allows
    cutting it. Iterating raises the errors of the engine: EngineError, Cancelled, KeyboardInterrupt.

        for token in generate(engine, tokenizer, tokenizer.encode("The"), GenerateSettings(max_tokens=20)):
            print(token.text, end="")
    """
    settings = settings or GenerateSettings()
    ids = engine.config.check_ids(prompt_ids) or _start(tokenizer)
    why = engine.config.limited_by(engine.context)
    ids, truncation = fit(ids, engine.context, settings, tokenizer.start_ids, limited_by=why)
    return Run(engine, tokenizer, ids, truncation, settings, prefix, cancel)


def _top(row: Floats | Likeliest, k: int) -> list[tuple[int, float]]:
    """Return the ids and logits of the k likeliest tokens of a row."""
    if isinstance(row, Likeliest):
        return list(zip(row.ids[:k].tolist(), row.logits[:k].tolist(), strict=True))
    places = ranked(row, k)
    return list(zip(places.tolist(), row[places].tolist(), strict=True))


def _start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of an empty prompt: the model's start tokens, or else its end-of-text token."""
    if tokenizer.start_ids:
        return tuple(tokenizer.start_ids)
    end = tokenizer.id_of(END_OF_TEXT)
    if end is None:
        raise BadInput("the prompt is empty and this model has no token to start from; give it some text")
    return (end,)
