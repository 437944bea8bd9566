"""EventAssembly: the worker's events of one request put together, and the errors that they tell."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from pophood.openai.asked import Asked
from pophood.openai.assembly import Assembly, Grown
from pophood.openai.errors import BUSY, INVALID, SERVER, ApiError, overflow
from pophood.serve.messages import (
    Answered,
    Begun,
    Ended,
    Failed,
    FailureKind,
    PromptInspected,
    PromptRead,
    PromptScored,
    Tokens,
)

# What the worker reports -> status, type, code.
_FAILURES: Mapping[FailureKind, tuple[int, str, str | None]] = {
    "overflow": (400, INVALID, "context_length_exceeded"),
    "invalid": (400, INVALID, None),
    "full": (429, BUSY, "queue_full"),
    "engine": (500, SERVER, "engine_error"),
    "internal": (500, SERVER, "internal_error"),
    "stopping": (503, SERVER, "server_stopping"),
    "dead": (503, SERVER, "engine_dead"),
}


class EventAssembly(Assembly):
    """The state of an answer while its events arrive, and how much of the prompts has been read."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.moved = False  # whether the last `take` told of progress in reading
        self._began = time.perf_counter()
        self._read: dict[int, int] = {}

    def take(self, events: Iterable[tuple[int, Answered]]) -> Grown:
        """Take events; return the new text of each choice that has some. Raises ApiError for a failure."""
        grown: Grown = {}
        self.moved = False
        for prompt, event in events:
            if isinstance(event, Failed):
                raise of_failure(event, self.asked.param)
            if isinstance(event, Begun):
                self.begin(prompt, event.prompt_tokens, event.cached, grown)
                self._read[prompt] = event.cached
            elif isinstance(event, PromptRead):
                self._read[prompt], self.moved = event.read, True
            elif isinstance(event, PromptInspected):
                self.look(prompt, event.insides, grown)
            elif isinstance(event, PromptScored):
                self.repeat(prompt, event.scores, grown)
            elif isinstance(event, Tokens):
                for token in event.tokens:
                    self.grow(prompt, token, grown)
            elif isinstance(event, Ended):
                self.end(prompt, event.timings)
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
        """The fields that are told once of a whole answer, beside OpenAI's."""
        return {"timings": self.counts.speeds, **super().details}


def of_failure(failed: Failed, param: str) -> ApiError:
    """Return the error of a request that the worker ended; `param` names what a prompt was made of."""
    if failed.kind == "overflow" and failed.got is not None and failed.limit is not None:
        return overflow(failed.got, failed.limit, param)
    status, kind, code = _FAILURES[failed.kind]
    return ApiError(status, failed.message, kind, code=code)
