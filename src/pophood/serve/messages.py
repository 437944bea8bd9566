"""Messages between the HTTP side and the worker: frozen records of plain values, which can be pickled.

    HTTP side ── Submit, ShowView, Cancel, Drain ──► worker
              ◄── Begun, PromptRead, PromptInspected, PromptScored, Tokens, Ended, Failed, Gauges, ViewShown ─

No engine, scheduler or connection crosses, so that the worker can be a thread or a process. The events of one
request come in this order: Begun, any number of PromptRead and PromptInspected, PromptScored if scores were
asked for, any number of Tokens, and Ended. Failed takes the place of all that would follow it. Nothing comes
after Ended, ViewShown or Failed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pophood.errors import BadInput, ContextOverflow, EngineError, PophoodError, QueueFull, one_line
from pophood.generate import Finish, GenerateSettings, Inside, Timings, Token
from pophood.generate.pooling import Pooling
from pophood.openai.model import AdapterPair as AdapterPair
from pophood.phrases import USUAL

# Why a request failed, and what the HTTP side answers:
#   overflow   the prompt is longer than the window                    400, with both counts
#   invalid    a value that is out of range, an adapter that is unknown 400
#   full       too many requests wait                                  429
#   engine     the engine met a NaN, or ran out of memory              500
#   internal   a bug                                                   500
#   stopping   the server is ending                                    503
#   dead       the worker has ended by an error                        503
FailureKind = Literal["overflow", "invalid", "full", "engine", "internal", "stopping", "dead"]


UNWATCHED = math.inf  # the pause of an answer that nobody watches
ENDING = "the server is ending"  # the words of "stopping"


@dataclass(frozen=True, slots=True)
class Submit:
    """A request to continue a prompt.

    `id` is new for every request; a `client` with many requests delays others no more than one with few.
    `scores`: None, or how many of the likeliest tokens to report beside the log-probability of each token of
    the prompt. With `generates` False the prompt is scored and nothing more. Between two tellings of tokens
    lie at least `pause` seconds; UNWATCHED: nobody watches the answer grow, so its tokens are told many at a
    time, and its progress is not told. With `pools` the whole prompt becomes one vector, and nothing is
    generated.
    """

    id: int
    client: Hashable
    prompt: tuple[int, ...]
    settings: GenerateSettings
    adapters: tuple[AdapterPair, ...] = ()
    scores: int | None = None
    generates: bool = True
    pools: Pooling | None = None
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of a request has gone: stop computing it. Nothing more is sent about it."""

    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """End: refuse new requests, let those that run go on for `grace` seconds, then end them with Failed."""

    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class UseThreads:
    """Compute with so many threads from the next step on."""

    threads: int


@dataclass(frozen=True, slots=True)
class ShowView:
    """A view that is asked for: its name, what it looks at, and its options, checked already.

    `text` is words or token ids; None for a view of the model alone. `precision` None is that of the model.
    `language` is the one that the view speaks.
    """

    id: int
    name: str
    text: str | tuple[int, ...] | None
    options: Mapping[str, Any]
    adapters: tuple[AdapterPair, ...] = ()
    precision: str | None = None
    language: str = USUAL


@dataclass(frozen=True, slots=True)
class AddAdapter:
    """An adapter to open, which later requests can name. ViewShown comes when it is there."""

    id: int
    name: str
    place: str


@dataclass(frozen=True, slots=True)
class CourseStep:
    """A cell of a page of the course to run, or, with a `guess`, the reader's guess to judge."""

    id: int
    language: str
    page: int
    section: str = ""
    index: int = 0
    guess: str | None = None


Errand = ShowView | AddAdapter | CourseStep  # done between the steps of the answers (`serve.errands`)
Message = Submit | Cancel | Drain | UseThreads | Errand


@dataclass(frozen=True, slots=True)
class Begun:
    """A request has left the queue.

    `cached` of its `prompt_tokens` are in the cache already; `seed` repeats its draws.
    """

    id: int
    cached: int
    prompt_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class PromptRead:
    """`read` of the `total` tokens of the prompt have been computed, those from the cache included."""

    id: int
    read: int
    total: int


@dataclass(frozen=True, slots=True)
class PromptInspected:
    """The insides of further tokens of the prompt, in their order."""

    id: int
    insides: tuple[Inside, ...]


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The scores of the prompt's tokens (`generate.TokenScore`); the first has no log-probability."""

    id: int
    scores: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Pooled:
    """The vector of a prompt: its single-precision numbers as bytes. Ended comes next."""

    id: int
    vector: bytes


@dataclass(frozen=True, slots=True)
class ViewShown:
    """A view as plain data (`look.answer`), or what another errand gave. Nothing else comes for one."""

    id: int
    view: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens. Of one step: one for each sample that goes on, in the order of samples; or of several."""

    id: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The request is done. `finishes` maps the number of a sample to the reason why it ended."""

    id: int
    finishes: Mapping[int, Finish]
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without all of its answer. `got` and `limit` are the counts of an overflow."""

    id: int
    kind: FailureKind
    message: str
    got: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state of the worker after a step: numbers of requests, and of blocks of keys and values."""

    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    blocks_cached: int = 0  # of those in use, kept for later prompts


Answered = (
    Begun | PromptRead | PromptInspected | PromptScored | Pooled | ViewShown | Tokens | Ended | Failed
)  # an event of one request
Event = Answered | Gauges


def failure(number: int, error: Exception) -> Failed:
    """Return the event for an error of a request."""
    words = one_line(error)
    if isinstance(error, ContextOverflow):
        return Failed(number, "overflow", words, error.got, error.limit)
    if isinstance(error, QueueFull):
        return Failed(number, "full", words)
    if isinstance(error, BadInput):
        return Failed(number, "invalid", words)
    if isinstance(error, EngineError | MemoryError | PophoodError):
        return Failed(number, "engine", words)
    return Failed(number, "internal", f"a bug in pophood: {type(error).__name__}: {words}")
