"""Continues several prompts together, so that one pass over the weights serves all of them.

    [open sequences -> one call: the next token of each, and pieces of new prompts -> choose, finish]

A call takes one token of every sequence that is being continued and, in the room that is left, tokens of
prompts that are being read; nothing is padded. When a sequence ends, the next prompt takes its place. Since a
row's bits depend on that row's history only, every result is the one that its prompt gives alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.errors import BadInput
from pophood.generate.choose import Chooser, Sample, Token
from pophood.generate.loop import prepared
from pophood.generate.prefix import Decoder
from pophood.generate.settings import GenerateSettings
from pophood.sampling import Likeliest
from pophood.sampling.softmax import Floats
from pophood.text.tokenizer import Tokenizer

ROOM = 512  # tokens of one call
TOGETHER, MOST_TOGETHER = 16, 256  # sequences at a time


@dataclass(eq=False, repr=False)
class BatchRun(Chooser):
    """A running generation that continues several prompts. Iterate over its tokens.

    `Token.sample` and the keys of `finishes` are indices of `prompts`. All draw the random numbers of sample
    `settings.first_sample`, as each would alone.
    """

    prompts: tuple[tuple[int, ...], ...]
    together: int
    _open: list[Sample] = field(default_factory=list)
    _read: dict[int, int] = field(default_factory=dict)  # tokens in the engine, by the number of a sample

    def _generate(self) -> Generator[Token, None, None]:
        self._began = time.perf_counter()
        waiting = deque(enumerate(self.prompts))
        try:
            while waiting or self._open:
                while waiting and len(self._open) < self.together:
                    self._enter(*waiting.popleft())
                for sample, row in self._call():
                    yield self.next_token(sample, row)
                self._leave()
        finally:
            for sample in self._open:
                self._engine.drop(sample.sequence)
            self._open = []

    def _enter(self, number: int, prompt: tuple[int, ...]) -> None:
        sequence = self._engine.new_sequence()
        self._read[number] = 0
        self._open.append(self.new_sample(number, self.settings.first_sample, sequence, prompt))

    def _call(self) -> list[tuple[Sample, Floats | Likeliest]]:
        """Feed what fits into one call; return the samples that get a token now, each with its row."""
        began, read = time.perf_counter(), self._read
        fed = self._shares()
        batch: list[tuple[int, Sequence[int]]] = [
            (sample.sequence, sample.ids[read[sample.number] : read[sample.number] + n]) for sample, n in fed
        ]
        rows = self.rows(batch)
        prompts = 0
        for sample, n in fed:
            read[sample.number] += n
            prompts += n if sample.length == 0 else 0
        seconds, tokens = time.perf_counter() - began, sum(n for _, n in fed)
        self.timings.prefill_tokens += prompts
        self.timings.prefill_seconds += seconds * prompts / tokens
        self.timings.decode_seconds += seconds * (tokens - prompts) / tokens
        return [
            (sample, row)
            for (sample, _), row in zip(fed, rows, strict=True)
            if read[sample.number] == len(sample.ids)
        ]

    def _shares(self) -> list[tuple[Sample, int]]:
        """Return how many tokens each sample gets: one if it goes on, else what fits of its prompt."""
        room = ROOM - sum(sample.length > 0 for sample in self._open)
        fed = []
        for sample in self._open:
            n = 1
            if sample.length == 0:
                n = min(room, len(sample.ids) - self._read[sample.number])
                room -= n
            if n:
                fed.append((sample, n))
        return fed

    def _leave(self) -> None:
        """Drop the sequences of finished samples."""
        finished = [sample for sample in self._open if sample.finish is not None]
        self._open = [sample for sample in self._open if sample.finish is None]
        for sample in finished:
            self._engine.drop(sample.sequence)


def generate_batch(
    engine: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    settings: GenerateSettings | None = None,
    cancel: Any = None,
    *,
    together: int = TOGETHER,
) -> BatchRun:
    """Continue several prompts, `together` at a time, and return an iterator of `Token` records.

    Each token is the one that `generate` gives for its prompt with the same settings. Raises as `generate`,
    for every prompt before anything is computed; BadInput for several samples of each.

        for token in generate_batch(engine, tokenizer, [tokenizer.encode("The"), tokenizer.encode("A")]):
            print(token.sample, token.text)
    """
    settings = settings or GenerateSettings()
    if settings.samples != 1:
        raise BadInput(f"a batch continues each prompt once, got samples={settings.samples}: leave it out")
    if not 1 <= together <= MOST_TOGETHER:
        raise BadInput(f"together is {together:,}; wanted 1 to {MOST_TOGETHER}")
    ready = tuple(prepared(engine, tokenizer, ids, settings)[0] for ids in prompts)
    return BatchRun(engine, tokenizer, settings, cancel, ready, together)
