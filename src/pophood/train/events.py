"""What a run of training reports, as small frozen records; `events.jsonl` has one per line. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Measuring:
    """Before the run: part `part` of `parts` of what is measured of the model and this machine begins.

    It is not in `events.jsonl`, for which there is no folder yet.
    """

    part: int  # 1..parts
    parts: int
    what: str
    step: int = 0


@dataclass(frozen=True, slots=True)
class Started:
    """Before step 1: the plan that the run will keep to."""

    first_step: int  # 0, or where a resumed run goes on
    steps: int  # of the whole run; with minutes the clock may change it on the way
    tokens_per_step: int
    trained: int  # parameters that learn
    parameters: int
    minutes: float | None  # the clock, if there is one


@dataclass(frozen=True, slots=True)
class Step:
    """One update: mean loss of its learned targets (nats), gradient length before clipping, pace."""

    step: int  # 1..steps
    loss: float
    gradient: float
    learning_rate: float
    learned: int  # targets
    tokens_per_second: float
    seconds: float  # since the run began
    epoch: int
    steps: int  # of the whole run, as it is planned now
    left: float  # seconds until the result is there, as far as one can see


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Mean loss on the validation documents after `step` updates."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the model makes of a fixed prompt after `step` updates."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint stands on the disk, whole."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that a reader of the run should know, in a line."""

    step: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Why it ended: "steps", "clock", "stopped" (Ctrl-C, SIGTERM), "no better"."""

    step: int
    reason: str
    seconds: float


Event = Measuring | Started | Step | Evaluated | Sampled | Saved | Noted | Finished


def as_line(event: Event) -> str:
    """One line of `events.jsonl`.

    >>> as_line(Saved(3, "checkpoint-3"))
    '{"event": "saved", "step": 3, "path": "checkpoint-3"}'
    """
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)}, ensure_ascii=False)
