"""THE generation loop: prompt tokens in, a stream of `Token` records out.

    prefill once -> fork per sample -> [choose a token per sample -> show its text -> finish, or feed it back]

Samples are computed as one batch; each chooses by its own random numbers, ends on its own and leaves the
batch. Whatever ends a run (its end, an error, Ctrl-C, a closed generator), no sequence stays behind but the
one that the PrefixCache keeps. No printing, no prompts to build: an engine appends, a tokenizer spells.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pophood.errors import BadInput
from pophood.generate.prefix import Decoder, PrefixCache
from pophood.generate.settings import GenerateSettings, Truncation, fit
from pophood.generate.stops import StopStrings
from pophood.sampling import Choice, chain, draw_seed, measures, ranked
from pophood.sampling.softmax import Floats

if TYPE_CHECKING:
    from pophood.text.tokenizer import TextStream, Tokenizer

Finish = Literal["stop", "length", "context", "stop_string"]
Top = tuple[int, str, float, float]  # id, text, logit, probability

END_OF_TEXT = "<|endoftext|>"  # GPT-2 began every document with it; so does an empty prompt


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    `text` is what may be shown now: text that could still become a stop string, or half a character, comes
    with a later token. `position` is its place in the sequence, `sample` its sample. `logit`, `probability`,
    `entropy` (nats) and `top` are the model's, before any sampling step; `chance` is what the chain left it.
    `seconds` count from the run's beginning. `finish` is set on a sample's last token.
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
    chance: float


@dataclass(slots=True)
class _Sample:
    """One sample under way: its sequence holds `ids` but for the last, which is fed next."""

    number: int
    sequence: int
    ids: list[int]
    stream: TextStream
    stops: StopStrings
    made: int = 0
    finish: Finish | None = None


@dataclass(slots=True)
class Timings:
    """Seconds of computing (not of whoever consumes the tokens), and how many tokens they cover."""

    prefill_seconds: float = 0.0
    prefill_tokens: int = 0
    decode_seconds: float = 0.0
    decode_tokens: int = 0  # made by decoding: the first of each sample comes out of the prefill

    @property
    def prefill_rate(self) -> float | None:
        """Prompt tokens per second."""
        return (
            self.prefill_tokens / self.prefill_seconds
            if self.prefill_tokens and self.prefill_seconds
            else None
        )

    @property
    def decode_rate(self) -> float | None:
        """New tokens per second over all samples."""
        return (
            self.decode_tokens / self.decode_seconds if self.decode_tokens and self.decode_seconds else None
        )


class Run(Iterator[Token]):
    """A generation under way: iterate over its tokens; `close` it, or leave a `with`, to stop early.

    `seed` repeats it; `prompt_ids` is the prompt as computed; `truncation` says what was taken out of it,
    `reused` how many of its tokens were already computed; `timings` grow as it goes; `finishes` maps a sample
    to why it ended.
    """

    def __init__(
        self,
        engine: Decoder,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        settings: GenerateSettings,
        prefix: PrefixCache | None = None,
        cancel: Any = None,
    ) -> None:
        self.settings = settings
        self.seed = draw_seed() if settings.seed is None else settings.seed
        ids = _checked_ids(prompt_ids, engine.config.vocab_size) or _start(tokenizer)
        self.truncation: Truncation | None
        why = engine.config.limited_by(engine.context)
        self.prompt_ids, self.truncation = fit(
            ids, engine.context, settings, tokenizer.start_ids, limited_by=why
        )
        self.reused = 0
        self.timings = Timings()
        self.finishes: dict[int, Finish] = {}
        self._chain = chain(settings.sampling)
        self._stop_ids = frozenset(tokenizer.stops if settings.stop_ids is None else settings.stop_ids)
        self._forbidden = tuple(sorted(i for i in self._stop_ids if i < engine.config.vocab_size))
        self._engine = engine
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._cancel = cancel
        self._samples: list[_Sample] = []
        self._began = time.perf_counter()
        self._tokens = self._generate()

    def __next__(self) -> Token:
        return next(self._tokens)

    def close(self) -> None:
        """Stop; every sequence of the run is dropped (or kept by the prefix cache)."""
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

    def _prefill(self) -> list[Floats]:
        """Compute the prompt once and fork it for every sample; each sample's first row of logits [V]."""
        ids, settings, began = self.prompt_ids, self.settings, time.perf_counter()
        if self._prefix is None:
            sequence = self._engine.new_sequence()
        else:
            sequence, self.reused = self._prefix.take(ids)
        self._samples = [self._sample(settings.first_sample, sequence)]
        row = self._engine.logits([(sequence, ids[self.reused :])], cancel=self._cancel)[0]
        for number in range(settings.first_sample + 1, settings.first_sample + settings.samples):
            self._samples.append(self._sample(number, self._engine.fork(sequence)))
        self.timings.prefill_seconds = time.perf_counter() - began
        self.timings.prefill_tokens = len(ids) - self.reused
        return [row] * settings.samples

    def _decode(self, live: list[_Sample]) -> list[Floats]:
        """Feed every live sample its last token; the next row of logits of each, [len(live), V]."""
        began = time.perf_counter()
        batch = [(sample.sequence, sample.ids[-1:]) for sample in live]
        rows = self._engine.logits(batch, cancel=self._cancel)
        self.timings.decode_seconds += time.perf_counter() - began
        return list(rows)

    def _next_token(self, sample: _Sample, row: Floats) -> Token:
        began = time.perf_counter()
        position = len(sample.ids)
        choice = self._chain.choose(
            row,
            sample.ids,
            seed=self.seed,
            sample=sample.number,
            position=position,
            forbidden=self._forbidden if sample.made < self.settings.sampling.min_tokens else (),
        )
        sample.ids.append(choice.id)
        sample.made += 1
        text = self._show(sample, choice.id)
        token = self._record(sample, row, choice, text, position)
        if sample.made > 1:
            self.timings.decode_seconds += time.perf_counter() - began
            self.timings.decode_tokens += 1
        return token

    def _show(self, sample: _Sample, token: int) -> str:
        """The text that may be shown after this token; decides whether the sample ends with it."""
        stopped = token in self._stop_ids
        text = "" if stopped and not self.settings.special else sample.stream.push(token)
        if stopped:
            sample.finish = "stop"
        elif sample.made == self.settings.max_tokens:
            sample.finish = "length"
        elif len(sample.ids) > self._engine.context:
            sample.finish = "context"
        if sample.finish is not None:
            text += sample.stream.flush()
        if sample.made > self.settings.sampling.min_tokens:
            text = sample.stops.push(text)
            if sample.stops.found is not None:
                sample.finish = "stop_string"
            elif sample.finish is not None:
                text += sample.stops.flush()
        if sample.finish is not None:
            self.finishes[sample.number] = sample.finish
        return text

    def _record(self, sample: _Sample, row: Floats, choice: Choice, text: str, position: int) -> Token:
        probability = entropy = top = None
        if self.settings.details != "plain":
            log_mass, entropy = measures(row)
            probability = math.exp(choice.logit - log_mass)
            if self.settings.details == "top":
                likeliest = ranked(row, self.settings.top).tolist()
                spell = self._tokenizer.token_text
                logits = [float(row[i]) for i in likeliest]
                top = tuple(
                    (i, spell(i), x, math.exp(x - log_mass)) for i, x in zip(likeliest, logits, strict=True)
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
            chance=choice.chance,
        )

    # ---- samples and their sequences ----

    def _sample(self, number: int, sequence: int) -> _Sample:
        from pophood.text.tokenizer import TextStream

        specials = self._tokenizer.specials
        continues = any(token not in specials for token in self.prompt_ids)
        stream = TextStream(
            self._tokenizer, self.settings.special, continues=continues, shown=self.settings.shown
        )
        return _Sample(number, sequence, list(self.prompt_ids), stream, StopStrings(self.settings.stop))

    def _leave(self, sample: _Sample) -> None:
        """Drop the sequence of a finished sample, unless it is the one to keep for the next prompt."""
        if sample is self._samples[0] and self._prefix is not None:
            return
        self._samples = [other for other in self._samples if other is not sample]
        self._engine.drop(sample.sequence)

    def _release(self) -> None:
        """The run's end, whatever brought it: keep the first sample's sequence if wanted, drop the others."""
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
    """Continue a prompt: a `Run`, which is an iterator of `Token` records.

    Errors in the request are raised here: BadInput (a token id outside the vocabulary, an empty prompt for a
    model without end-of-text token), ContextOverflow (a prompt over the window and no truncation chosen).
    While iterating: what the engine raises (EngineError, Cancelled, KeyboardInterrupt); no sequence is left.

        for token in generate(engine, tokenizer, tokenizer.encode("The"), GenerateSettings(max_tokens=20)):
            print(token.text, end="")
    """
    return Run(engine, tokenizer, prompt_ids, settings or GenerateSettings(), prefix, cancel)


def _checked_ids(ids: Sequence[int], vocab_size: int) -> tuple[int, ...]:
    try:
        whole = tuple(operator.index(token) for token in ids)
    except TypeError:
        raise BadInput("the prompt is neither text nor a sequence of token ids: encode it first") from None
    for token in whole:
        if not 0 <= token < vocab_size:
            raise BadInput(f"the prompt holds token {token}; wanted ids from 0 to {vocab_size - 1:,}")
    return whole


def _start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What an empty prompt means: the model's start tokens, else its end of text, as GPT-2 was trained."""
    if tokenizer.start_ids:
        return tuple(tokenizer.start_ids)
    end = tokenizer.id_of(END_OF_TEXT)
    if end is None:
        raise BadInput("the prompt is empty and this model has no token to start from; give it some text")
    return (end,)
