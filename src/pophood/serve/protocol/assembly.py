"""Assembly: the events of a request put together, choice by choice. Choice i of prompt p is p * n + i."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from pophood.generate import Token
from pophood.serve.messages import Answered, Begun, Ended, Failed, PromptRead, PromptScored, Tokens
from pophood.serve.protocol.choices import REASONS, AnswerShape, Counts, Reason
from pophood.serve.protocol.errors import of_failure
from pophood.serve.protocol.logprobs import Aligner, Speller, TokenEntry, prompt_entries, top_of
from pophood.serve.protocol.replies import PromptJob


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as the answer repeats it; `added` are start tokens before it that are not in its text."""

    text: str
    added: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The wishes of a request, checked, with everything that its answer needs.

    All `jobs` have the same settings. `param` is the field that prompts come from. `speller` is None without
    log-probabilities; `top` is how many of the likeliest tokens they list. `stops` end a text and are not
    shown in it. `echoes` has one item for each job, or none. `left_out` are sentences on what the model does
    not see of a conversation.
    """

    jobs: tuple[PromptJob, ...]
    shape: AnswerShape
    param: str
    seed: int
    speller: Speller | None = None
    top: int = 0
    stops: Container[int] = ()
    echoes: tuple[Echo, ...] = ()
    stream: bool = False
    usage_later: bool = False
    progress: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """The number of choices of each prompt."""
        return self.jobs[0].settings.samples

    @property
    def size(self) -> int:
        """The number of choices."""
        return len(self.jobs) * self.samples

    def indices(self, prompt: int) -> range:
        """Return the numbers of a prompt's choices."""
        return range(prompt * self.samples, (prompt + 1) * self.samples)


@dataclass(slots=True)
class Growth:
    """New text of one choice, with the tokens that it consists of."""

    text: str = ""
    entries: list[TokenEntry] = field(default_factory=list)


class Assembly:
    """The state of an answer while its events arrive.

    `counts` are complete when all prompts are done. `ends` are the choices that have ended, in that order.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.counts = Counts()
        self.ends: list[tuple[int, Reason]] = []
        self.moved = False  # whether the last `take` told of progress in reading
        self._began = time.perf_counter()
        self._read: dict[int, int] = {}
        self._aligners: dict[int, Aligner] = {}

    def take(self, events: Iterable[tuple[int, Answered]]) -> dict[int, Growth]:
        """Take events; return the new text of each choice that has some. Raises ApiError for a failure."""
        grown: dict[int, Growth] = {}
        self.moved = False
        for prompt, event in events:
            if isinstance(event, Failed):
                raise of_failure(event, self.asked.param)
            if isinstance(event, Begun):
                self.counts.prompt += event.prompt_tokens
                self.counts.cached += event.cached
                self._read[prompt] = event.cached
                if self.asked.jobs[prompt].scores is None:
                    self._repeat(prompt, (), grown)
            elif isinstance(event, PromptRead):
                self._read[prompt], self.moved = event.read, True
            elif isinstance(event, PromptScored):
                self._repeat(prompt, event.scores, grown)
            elif isinstance(event, Tokens):
                for token in event.tokens:
                    self._grow(prompt, token, grown)
            elif isinstance(event, Ended):
                self.counts.add(event.timings)
                if not self.asked.jobs[prompt].generates:
                    self.ends += [(index, "length") for index in self.asked.indices(prompt)]
        return grown

    @property
    def progress(self) -> dict[str, Any]:
        """How much of the prompts has been read, in llama.cpp's words."""
        return {
            "total": sum(len(job.prompt) for job in self.asked.jobs),
            "cache": self.counts.cached,
            "processed": sum(self._read.values()),
            "time_ms": round((time.perf_counter() - self._began) * 1e3),
        }

    @property
    def details(self) -> dict[str, Any]:
        """Fields that an answer has once, beside OpenAI's."""
        warned = {"warnings": list(self.asked.left_out)} if self.asked.left_out else {}
        return {"timings": self.counts.speeds, "seed": self.asked.seed, **warned}

    def _repeat(self, prompt: int, scores: tuple[Any, ...], grown: dict[int, Growth]) -> None:
        """Begin the choices of a prompt with its own text, if that was asked for."""
        if not self.asked.echoes:
            return
        echo, job = self.asked.echoes[prompt], self.asked.jobs[prompt]
        entries: list[TokenEntry] = []
        if self.asked.speller is not None and scores:
            entries = prompt_entries(self.asked.speller, job.prompt, scores, echo.text, added=echo.added)
        for index in self.asked.indices(prompt):
            grown[index] = Growth(echo.text, list(entries))

    def _grow(self, prompt: int, token: Token, grown: dict[int, Growth]) -> None:
        """Add a token to its choice."""
        asked = self.asked
        index = prompt * asked.samples + token.sample - asked.jobs[prompt].settings.first_sample
        self.counts.generated += 1
        entries = self._entries(prompt, index, token) if asked.speller is not None else []
        if token.text or entries:
            growth = grown.setdefault(index, Growth())
            growth.text += token.text
            growth.entries += entries
        if token.finish is not None:
            self.ends.append((index, REASONS[token.finish]))

    def _entries(self, prompt: int, index: int, token: Token) -> list[TokenEntry]:
        asked = self.asked
        assert asked.speller is not None
        aligner = self._aligners.get(index)
        if aligner is None:
            specials = asked.speller.tokenizer.specials
            continues = any(id_ not in specials for id_ in asked.jobs[prompt].prompt)
            offset = len(asked.echoes[prompt].text) if asked.echoes else 0
            stops = () if asked.jobs[prompt].settings.special else asked.stops
            aligner = Aligner(asked.speller, stops, continues=continues, offset=offset)
            self._aligners[index] = aligner
        return aligner.push(token, top_of(token, asked.top))
