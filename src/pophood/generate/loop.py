"""The generation loop: prompt tokens in, a stream of `Token` records out.

    prefill once -> fork per sample -> [choose a token per sample -> show its text -> finish, or feed it back]

Samples are computed as one batch. Each draws its own random numbers and leaves the batch when it ends.
However a run ends (normally, by an error, by Ctrl-C, by closing the generator), every sequence is dropped but
the one that the PrefixCache keeps. The loop prints nothing and builds no prompts; `choose.py` turns rows into
tokens.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.errors import BadInput
from pophood.generate.choose import Chooser, Sample, Token
from pophood.generate.prefix import Decoder, PrefixCache
from pophood.generate.settings import GenerateSettings, Truncation, fit
from pophood.sampling import Likeliest
from pophood.sampling.softmax import Floats
from pophood.text.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"  # stands before every document that GPT-2 learned from, and for an empty prompt


@dataclass(eq=False, repr=False)
class Run(Chooser):
    """A running generation that continues one prompt. Iterate over its tokens.

    `prompt_ids` is the prompt as computed, `truncation` what was cut from it, `reused` how many of its tokens
    had been computed before.
    """

    prompt_ids: tuple[int, ...]
    truncation: Truncation | None
    _prefix: PrefixCache | None
    reused: int = 0
    _samples: list[Sample] = field(default_factory=list)

    def _generate(self) -> Generator[Token, None, None]:
        self._began = time.perf_counter()
        try:
            rows = self._prefill()
            live = list(self._samples)
            while live:
                for sample, row in zip(live, rows, strict=True):
                    yield self.next_token(sample, row)
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
        first = settings.first_sample
        self._samples = [self.new_sample(first, first, sequence, ids)]
        row = self.rows([(sequence, ids[self.reused :])])[0]
        for number in range(first + 1, first + settings.samples):
            self._samples.append(self.new_sample(number, number, self._engine.fork(sequence), ids))
        self.timings.prefill_seconds = time.perf_counter() - began
        self.timings.prefill_tokens = len(ids) - self.reused
        return [row] * settings.samples

    def _decode(self, live: list[Sample]) -> list[Floats | Likeliest]:
        """Feed every live sample its last token and return the next row of each."""
        began = time.perf_counter()
        batch: list[tuple[int, Sequence[int]]] = [(sample.sequence, sample.ids[-1:]) for sample in live]
        rows = self.rows(batch)
        self.timings.decode_seconds += time.perf_counter() - began
        return rows

    def _leave(self, sample: Sample) -> None:
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
    ids, truncation = prepared(engine, tokenizer, prompt_ids, settings)
    return Run(engine, tokenizer, settings, cancel, ids, truncation, prefix)


def prepared(
    engine: Decoder, tokenizer: Tokenizer, prompt_ids: Sequence[int], settings: GenerateSettings
) -> tuple[tuple[int, ...], Truncation | None]:
    """Return a prompt as it will be computed, and what was cut from it. Raises as `generate`."""
    ids = engine.config.check_ids(prompt_ids) or _start(tokenizer)
    why = engine.config.limited_by(engine.context)
    return fit(ids, engine.context, settings, tokenizer.start_ids, limited_by=why)


def _start(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens of an empty prompt: the model's start tokens, or else its end-of-text token."""
    if tokenizer.start_ids:
        return tuple(tokenizer.start_ids)
    end = tokenizer.id_of(END_OF_TEXT)
    if end is None:
        raise BadInput("the prompt is empty and this model has no token to start from; give it some text")
    return (end,)
