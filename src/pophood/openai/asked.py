"""Asked: the wishes of a request, checked, with everything that its answer needs."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pophood.generate import GenerateSettings
from pophood.generate.pooling import Pooling
from pophood.generate.request import blocks_needed
from pophood.openai.choices import AnswerShape
from pophood.openai.errors import invalid, overflow
from pophood.openai.inspecting import InsideWriter, check_bound
from pophood.openai.logprobs import Speller
from pophood.openai.model import AdapterPair, ServedModel
from pophood.openai.tools.parser import CallReading


@dataclass(frozen=True, slots=True)
class PromptJob:
    """One prompt of a request, to be continued, scored, or both; or to become one vector.

    `scores`: None, or how many of the likeliest tokens to report beside each token of the prompt.
    """

    prompt: tuple[int, ...]
    settings: GenerateSettings
    adapters: tuple[AdapterPair, ...] = ()
    scores: int | None = None
    generates: bool = True
    pools: Pooling | None = None


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt as the answer repeats it; `added` are start tokens before it that are not in its text."""

    text: str
    added: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The wishes of a request.

    All `jobs` have the same settings. `param` is the field that prompts come from. `speller` is None without
    log-probabilities; `top` is how many of the likeliest tokens they list. `stops` end a text and are not
    shown in it. `echoes` has one item for each job, or none. `left_out` are sentences on what the model does
    not see of a conversation. `inside` writes what the model's insides are told of, if they are. `calls`:
    how calls of functions are read, if the request has some. `pause`: seconds between two pieces of a stream.
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
    inside: InsideWriter | None = None
    calls: CallReading | None = None
    pause: float = 0.0

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


def check_jobs(jobs: Sequence[PromptJob], served: ServedModel, param: str) -> None:
    """Raise ApiError for all that can be known to be impossible, before a stream has begun.

    The worker would refuse the same, but after a delay that may depend on others.
    """
    for job in jobs:
        tokens, highest = len(job.prompt), max(job.prompt, default=0)
        if tokens > served.window:
            raise overflow(tokens, served.window, param)
        if highest >= served.vocab_size:
            raise invalid(
                f"{param}: token id {highest} is not in the vocabulary (0 to {served.vocab_size - 1:,})",
                param,
            )
        needed = blocks_needed(served.kv, tokens, job.settings, job.generates, served.window, job.pools)
        if served.blocks is not None and needed > served.blocks:
            raise invalid(
                f"n = {job.settings.samples} needs {needed:,} blocks of keys and values, and "
                f"{served.blocks:,} are there: ask for fewer choices or tokens",
                "n",
            )
    lengths = [len(job.prompt) for job in jobs]
    check_bound(lengths, jobs[0].settings, served, generates=jobs[0].generates)
    sampling, forbidden = jobs[0].settings.sampling, jobs[0].settings.sampling.logit_bias
    if len(forbidden) + len(served.stop_ids) >= served.vocab_size:
        none = {id_ for id_, bias in forbidden.items() if bias == -math.inf}
        if len(none.union(served.stop_ids if sampling.min_tokens else ())) >= served.vocab_size:
            raise invalid("every token is forbidden by logit_bias or min_tokens: allow one", "logit_bias")


def wants_usage(stream_options: Mapping[str, Any] | None) -> bool:
    """Return whether the options of a stream ask for the usage at its end."""
    return stream_options is not None and bool(stream_options.get("include_usage"))


def pause_of(stream_options: Mapping[str, Any] | None) -> float:
    """Return the seconds that the options of a stream want between two pieces with tokens."""
    return ((stream_options or {}).get("interval_ms") or 0) / 1000
