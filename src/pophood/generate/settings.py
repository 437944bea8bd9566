"""GenerateSettings: how much to generate, when to stop, and how much to report about each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from pophood.errors import BadInput, ContextOverflow, short
from pophood.generate.inside import Inspect
from pophood.generate.stops import checked
from pophood.grammar import Grammar
from pophood.sampling import SEED_LIMIT, SamplingSettings
from pophood.table import count

Details = Literal["plain", "probability", "top"]
Truncate = Literal["error", "left", "middle"]


@dataclass(frozen=True, slots=True)
class GenerateSettings:
    """The settings of one generation, checked when they are made.

    With `max_tokens` None a sample goes on until a stop or the end of the context window. `samples` are
    numbered from `first_sample`: sample 7 alone is `samples=1, first_sample=7`. With `seed` None a seed is
    drawn, which the run reports. `stop` are texts that end a sample and are not shown; `stop_ids` None means
    the model's own, () none. `details` "plain" computes no probability, entropy and top tokens; "probability"
    the first two; "top" lists the `top` likeliest tokens as well. `truncate` "left" keeps the newest tokens
    of a prompt that is too long, "middle" its beginning and end. `special` shows all special tokens, `shown`
    those with these ids. `grammar` is a form that every sample's text must have. `inspect` says what to tell
    of the model's insides. Raises BadInput.
    """

    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    max_tokens: int | None = 100
    samples: int = 1
    first_sample: int = 0
    seed: int | None = None
    stop: Sequence[str] = ()
    stop_ids: tuple[int, ...] | None = None
    details: Details = "plain"
    top: int = 10
    truncate: Truncate = "error"
    special: bool = False
    shown: tuple[int, ...] = ()
    grammar: Grammar | None = None
    inspect: Inspect | None = None

    def __post_init__(self) -> None:
        _check_whole("samples", self.samples, 1)
        _check_whole("first_sample", self.first_sample, 0)
        _check_whole("top", self.top, 1)
        if self.max_tokens is not None:
            _check_whole("max_tokens", self.max_tokens, 1)
            if self.sampling.min_tokens > self.max_tokens:
                raise BadInput(
                    f"min_tokens is {self.sampling.min_tokens:,}, over max_tokens, {self.max_tokens:,}; "
                    "lower the one or raise the other"
                )
        if self.seed is not None:
            _check_whole("seed", self.seed, 0, SEED_LIMIT - 1)
        for name, value, choices in (
            ("details", self.details, get_args(Details)),
            ("truncate", self.truncate, get_args(Truncate)),
        ):
            if value not in choices:
                raise BadInput(f"{name} is {value!r}; wanted one of {', '.join(choices)}")
        checked(self.stop)
        if self.grammar is not None and not isinstance(self.grammar, Grammar):
            raise BadInput(f"grammar is {short(self.grammar)}; wanted a Grammar, as Grammar.json_schema(...)")


@dataclass(frozen=True, slots=True)
class Truncation:
    """The cut in a prompt of `got` tokens: `dropped` of them, from index `at` on."""

    kind: Truncate
    got: int
    dropped: int
    at: int

    def __str__(self) -> str:
        where = "from its beginning" if self.kind == "left" else "from its middle"
        return f"the prompt has {count(self.got, 'token')}; {self.dropped:,} were dropped {where}"


def fit(
    ids: Sequence[int],
    context: int,
    settings: GenerateSettings,
    start: Sequence[int] = (),
    *,
    limited_by: str = "",
) -> tuple[tuple[int, ...], Truncation | None]:
    """Return the prompt as it will be computed, and the cut, if one was needed.

    A prompt that fits is not cut, however little room it leaves. A prompt that is cut leaves room for
    `max_tokens`, at most half of the window, and keeps the model's start tokens. Raises ContextOverflow if
    `settings.truncate` is "error"; `limited_by` is then the reason for the limit, if there is one.
    """
    ids = tuple(ids)
    if len(ids) <= context:
        return ids, None
    if settings.truncate == "error":
        raise ContextOverflow(len(ids), context, why=limited_by)
    room = context if settings.max_tokens is None else settings.max_tokens
    length = context + 1 - max(1, min(room, context // 2))  # the last generated token is never fed back
    head = len(start) if start and ids[: len(start)] == tuple(start) and len(start) < length else 0
    if settings.truncate == "middle":
        head = max(head, length // 2)
    dropped = len(ids) - length
    return ids[:head] + ids[head + dropped :], Truncation(settings.truncate, len(ids), dropped, head)


def _check_whole(name: str, value: object, low: int, high: int | None = None) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool)
    if fits and isinstance(value, int) and value >= low and (high is None or value <= high):
        return
    wanted = f"{low:,} or more" if high is None else f"from {low} to {high}"
    raise BadInput(f"{name} is {value!r}; wanted a whole number, {wanted}")
