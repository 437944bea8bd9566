"""The events of a training run as small frozen records; `events.jsonl` has one per line. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Measuring:
    """The start of part `part` of `parts` of the measurements before the run, of the model and this machine.

    It is not written to `events.jsonl`, because the run has no folder yet.
    """

    part: int  # 1..parts
    parts: int
    what: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The plan of the run, before its first step."""

    first_step: int  # 0, or the last step before a resumed run
    steps: int  # of the whole run; if it has minutes, the clock may change the number
    tokens_per_step: int
    trained: int  # trainable parameters
    parameters: int
    minutes: float | None  # None: the run has a number of steps


@dataclass(frozen=True, slots=True)
class Step:
    """One update: mean loss over its targets (nats), gradient norm before clipping, and speed."""

    step: int  # 1..steps
    loss: float
    gradient: float
    learning_rate: float
    learned: int  # number of targets
    tokens_per_second: float
    seconds: float  # since the run began
    epoch: int
    steps: int  # of the whole run, as planned now
    left: float  # estimated seconds until the result is written


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Mean loss on the validation documents after `step` updates."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True, slots=True)
class Sampled:
    """The model's continuation of a fixed prompt after `step` updates."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Looked:
    """The logit lens at the end of a fixed prompt after `step` updates.

    For each block, the likeliest next tokens if it were the last one, with their probabilities.
    """

    step: int
    prompt: str
    blocks: tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint was written completely."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A remark about the run for its user."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of the run; `reason` is "steps", "clock", "stopped" (Ctrl-C, SIGTERM) or "no better"."""

    step: int
    reason: str
    seconds: float


Event = Measuring | Started | Step | Evaluated | Sampled | Looked | Saved | Noted | Finished


def as_line(event: Event) -> str:
    """Return an event as a line of `events.jsonl`.

    >>> as_line(Saved(3, "checkpoint-3"))
    '{"event": "saved", "step": 3, "path": "checkpoint-3"}'
    """
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)}, ensure_ascii=False)
