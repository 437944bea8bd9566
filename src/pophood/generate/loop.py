"""Continues one prompt: a stream of `Token` records from a scheduler of its own.

However a run ends (normally, by an error, by Ctrl-C, by closing the generator), every sequence is dropped but
the one that the PrefixCache keeps. Nothing is printed here, and no prompt is built; `scheduler.py` is the
loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Self

from pophood.errors import BadInput
from pophood.generate.choose import END_OF_TEXT, Finish, Timings, Token
from pophood.generate.decoder import Decoder
from pophood.generate.inside import Inside
from pophood.generate.prefix import PrefixCache
from pophood.generate.request import Request, Running
from pophood.generate.scheduler import Scheduler
from pophood.generate.settings import GenerateSettings, Truncation, fit
from pophood.text.tokenizer import Tokenizer


class Run(Iterator[Token]):
    """A running generation that continues one prompt. Iterate over its tokens.

    `close` it, or leave a `with`, to stop early. `seed` repeats the run. `prompt_ids` is the prompt as
    computed, `truncation` what was cut from it, `reused` how many of its tokens had been computed before.
    `timings` grow during the run. `finishes` maps the number of a sample to the reason why it ended.
    """

    def __init__(self, scheduler: Scheduler, running: Running, truncation: Truncation | None = None) -> None:
        self._running = running
        self.settings, self.prompt_ids = running.request.settings, running.request.prompt
        self.truncation = truncation
        self._tokens = stepped(scheduler)

    def __next__(self) -> Token:
        return next(self._tokens)[1]

    @property
    def seed(self) -> int:
        return self._running.seed

    @property
    def reused(self) -> int:
        return self._running.reused

    @property
    def timings(self) -> Timings:
        return self._running.timings

    @property
    def insides(self) -> list[Inside]:
        """The insides of the tokens of the prompt that are inspected."""
        return self._running.insides

    @property
    def finishes(self) -> dict[int, Finish]:
        return self._running.finishes

    def close(self) -> None:
        """Stop, and drop every sequence of the run, except one that the prefix cache keeps."""
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stepped(scheduler: Scheduler) -> Generator[tuple[Running, Token], None, None]:
    """Yield the tokens of a scheduler until it is idle. Raises the first error of a request.

    The scheduler is closed however this ends.
    """
    try:
        while not scheduler.idle:
            step = scheduler.step()
            yield from step.tokens
            for running in step.ended:
                if running.error is not None:
                    raise running.error
    finally:
        scheduler.close()


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
    scheduler = Scheduler(engine, tokenizer, prefix, cancel=cancel)
    return Run(scheduler, scheduler.submit(Request(ids, settings)), truncation)


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
