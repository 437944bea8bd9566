"""Asked: the wishes of a request, checked, with everything that its answer needs."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from pophood.generate import GenerateSettings
from pophood.openai.choices import AnswerShape
from pophood.openai.logprobs import Speller
from pophood.openai.model import AdapterPair


@dataclass(frozen=True, slots=True)
class PromptJob:
    """One prompt of a request, to be continued, scored, or both.

    `scores`: None, or how many of the likeliest tokens to report beside each token of the prompt.
    """

    prompt: tuple[int, ...]
    settings: GenerateSettings
    adapters: tuple[AdapterPair, ...] = ()
    scores: int | None = None
    generates: bool = True


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


def wants_usage(stream_options: Mapping[str, Any] | None) -> bool:
    """Return whether the options of a stream ask for the usage at its end."""
    return stream_options is not None and bool(stream_options.get("include_usage"))
