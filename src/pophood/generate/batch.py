"""Continues several prompts together, so that one pass over the weights serves all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from pophood.errors import BadInput
from pophood.generate.choose import Finish, Timings, Token
from pophood.generate.decoder import Decoder
from pophood.generate.loop import prepared, stepped
from pophood.generate.passes import PrefillPace
from pophood.generate.request import Request, Running
from pophood.generate.scheduler import TOGETHER, Scheduler
from pophood.generate.settings import GenerateSettings
from pophood.sampling import draw_seed
from pophood.text.tokenizer import Tokenizer


class BatchRun(Iterator[Token]):
    """A running generation that continues several prompts. Iterate over its tokens.

    `Token.sample` and the keys of `finishes` are indices of the prompts. All draw the random numbers of
    sample `settings.first_sample`, as each would alone.
    """

    def __init__(self, scheduler: Scheduler, running: Sequence[Running], settings: GenerateSettings) -> None:
        self.settings = settings
        self._numbers = {one: number for number, one in enumerate(running)}
        self._tokens = stepped(scheduler)

    def __next__(self) -> Token:
        running, token = next(self._tokens)
        return replace(token, sample=self._numbers[running])

    @property
    def seed(self) -> int:
        """The seed of every prompt."""
        return self.settings.seed or 0

    @property
    def finishes(self) -> dict[int, Finish]:
        """Why each prompt's text ended, of those that have."""
        first = self.settings.first_sample
        return {number: one.finishes[first] for one, number in self._numbers.items() if one.finishes}

    @property
    def timings(self) -> Timings:
        """The sums over all prompts."""
        every = [one.timings for one in self._numbers]
        return Timings(
            sum(one.prefill_seconds for one in every),
            sum(one.prefill_tokens for one in every),
            sum(one.decode_seconds for one in every),
            sum(one.decode_tokens for one in every),
        )

    def close(self) -> None:
        """Stop, and drop every sequence."""
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    if settings.seed is None:
        settings = replace(settings, seed=draw_seed())
    ready = [prepared(engine, tokenizer, ids, settings)[0] for ids in prompts]
    scheduler = Scheduler(
        engine, tokenizer, together=together, pace=PrefillPace(slowdown=None), cancel=cancel
    )
    running = [scheduler.submit(Request(ids, settings)) for ids in ready]
    return BatchRun(scheduler, running, settings)
