"""One generation on the command line: its settings, its streamed output, and its figures."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.terminal.console import Console, facts_of
from pophood.cli.terminal.outputs import Outputs, completion
from pophood.cli.terminal.tables import count, seconds
from pophood.errors import BadInput, Cancelled
from pophood.system import check_writable_target

if TYPE_CHECKING:
    from pophood.cli.options.sampling import SamplingArgs
    from pophood.generate import GenerateSettings, Run, Token
    from pophood.model.lm import LM
    from pophood.text.tokenizer import Tokenizer

ENDS = {
    "stop": "at a stop token",
    "stop_string": "at a stop text",
    "length": "at the token limit",
    "context": "at a full context",
}

WINDOW = 200  # tokens; an intended list or refrain is shorter


@dataclass(frozen=True, slots=True)
class Shape:
    """The form of the output that `run` was asked for, and what to do with a prompt that is too long."""

    samples: int
    as_json: bool
    html: Path | None
    open_page: bool
    show_prompt: bool
    truncate: str

    def check(self) -> None:
        """Raise UsageError for contradictory options, before a model is loaded."""
        if self.open_page and self.html is None:
            raise click.UsageError("--open shows the page that --html writes: add --html FILE")
        if self.as_json and not self.show_prompt:
            raise click.UsageError("--no-prompt is for text; --json has the prompt and the completion apart")
        if self.html is not None:
            check_writable_target(self.html)


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a generation, complete or stopped by Ctrl-C."""

    outputs: list[list[Token]]
    prompt_ids: tuple[int, ...]
    settings: GenerateSettings
    seed: int
    seconds: float
    interrupted: bool
    loop: int | None = None  # length in tokens of the repeated span, if the loop guard ended it

    @property
    def count(self) -> int:
        """The number of new tokens in all samples."""
        return sum(map(len, self.outputs))

    def figures(self) -> str:
        """Return the number of tokens, the time and the speed as text."""
        rate = f", {self.count / self.seconds:.0f} tokens/s" if self.seconds > 0 else ""
        return f"{count(self.count, 'token')} in {seconds(self.seconds)}{rate}"

    def summary(self) -> str:
        """Return one line with the figures, why generation ended, and the seed that repeats it."""
        finishes = {tokens[-1].finish for tokens in self.outputs if tokens}
        ends = [words for end, words in ENDS.items() if end in finishes]
        if self.interrupted:
            ends = ["by Ctrl-C"]
        elif self.loop is not None:
            ends = ["since it went in circles"]
        seed = "" if self.settings.sampling.greedy else f"; seed {self.seed}"
        return f"{self.figures()}; ended {', '.join(ends)}{seed}"

    def as_dict(self, lm: LM, prompt: str) -> dict[str, Any]:
        """Return the result as a dictionary for --json."""
        sampling, grammar = asdict(self.settings.sampling), self.settings.grammar
        sampling["logit_bias"] = {str(id_): finite(x) for id_, x in sampling["logit_bias"].items()}
        return {
            **model_facts(lm),
            "file": str(lm.path),
            "sampling": sampling,
            **({} if grammar is None else {"grammar": asdict(grammar)}),
            "seed": self.seed,
            "prompt": prompt,
            "prompt_ids": list(self.prompt_ids),
            "seconds": self.seconds,
            "tokens_per_second": self.count / self.seconds if self.seconds > 0 else None,
            "interrupted": self.interrupted,
            "outputs": [
                {
                    "text": prompt + completion(tokens),
                    "completion": completion(tokens),
                    "finish": tokens[-1].finish if tokens else None,
                    "tokens": [token_dict(token) for token in tokens],
                }
                for tokens in self.outputs
            ],
        }


def adapter_facts(lm: LM) -> list[dict[str, Any]]:
    """Return the model's active adapters for --json and for saved conversations."""
    return [{"path": place, "scale": scale} for place, scale in lm.adapter_places]


def model_facts(lm: LM) -> dict[str, Any]:
    """Return the facts about a loaded model with which results for --json begin."""
    return {"model": lm.name, "precision": lm.engine.precision, "adapters": adapter_facts(lm)}


def finite(number: float) -> float | str:
    """Return a number that JSON can represent: infinities and NaN become strings."""
    return number if math.isfinite(number) else str(number)


def token_dict(token: Token) -> dict[str, Any]:
    """Return one token as a dictionary for --json, without the fields that were not computed."""
    fields = facts_of(token, "id", "text", "position", "logit", "probability", "entropy")
    fields |= facts_of(token, "seconds", chance="final_probability")
    facts = {name: value for name, value in fields.items() if value is not None}
    if token.top is not None:
        names = ("id", "text", "logit", "probability")
        facts["top"] = [dict(zip(names, row, strict=True)) for row in token.top]
    return facts


def settings_of(sampling: SamplingArgs, lm: LM) -> dict[str, Any]:
    """Return keywords for LM.stream and LM.chat: the file's suggestions if requested, then the options."""
    from pophood.sampling import breakers_of

    tokenizer = lm.bundle.tokenizer
    for name, fault in lm.bundle.suggestion_faults.items() if sampling.model_defaults else ():
        if name not in sampling.settings:
            raise BadInput(f"--model-defaults: {fault}: leave the option out, or choose {name} yourself too")
    settings: dict[str, Any] = dict(lm.bundle.suggested) if sampling.model_defaults else {}
    settings |= sampling.settings | sampling.limits
    if sampling.bias:
        settings["logit_bias"] = bias(sampling.bias, tokenizer)
    if sampling.breakers:
        words = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        encode = functools.partial(tokenizer.encode, add_start=False)
        settings["dry_breakers"] = breakers_of(sampling.breakers, words, encode)
    return settings


def bias(texts: Iterable[str], tokenizer: Tokenizer) -> Mapping[int, float]:
    """Return token ids and biases from texts TOKEN=X, where TOKEN is an id or a text of exactly one token."""
    biases: dict[int, float] = {}
    for text in texts:
        token, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or not token:
            raise BadInput(f"--logit-bias {text!r}: wanted TOKEN=X, as in ' Madrid=-5' or 464=-inf")
        id_ = int(token) if token.isdecimal() else tokenizer.id_of(token)
        if id_ is None:
            ids = tokenizer.encode(token, add_start=False)
            raise BadInput(
                f"--logit-bias {text!r}: {token!r} is the tokens {ids}; wanted one token, or an id"
            )
        biases[id_] = number
    return biases


def generate(console: Console, run: Run, outputs: Outputs, guard: LoopGuard | None = None) -> RunResult:
    """Show every token of a run and return the result, which after Ctrl-C holds the tokens so far.

    A `guard` ends a run of one sample that only repeats itself.
    """
    if run.truncation is not None:
        console.say(f"truncated: {run.truncation}")
    took, interrupted = 0.0, False
    loop: int | None = None
    try:
        with run:
            for token in run:
                outputs.add(token)
                took = token.seconds
                loop = guard.add(token.id) if guard is not None else None
                if loop is not None:
                    break
    except (KeyboardInterrupt, Cancelled):
        interrupted = True
    finally:
        outputs.close()
    timings = run.timings
    console.detail(
        f"prompt: {count(len(run.prompt_ids), 'token')}, {run.reused} of them computed before, "
        f"{seconds(timings.prefill_seconds)}; then {timings.decode_rate or 0:.1f} tokens/s"
    )
    return RunResult(outputs.tokens, run.prompt_ids, run.settings, run.seed, took, interrupted, loop)


class LoopGuard:
    """Watches the tokens of one answer for repetition.

    >>> guard = LoopGuard(window=6)
    >>> [guard.add(id_) for id_ in (5, 1, 2, 3, 1, 2, 3)]
    [None, None, None, None, None, None, 3]
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._ids: deque[int] = deque(maxlen=window)

    def add(self, id_: int) -> int | None:
        """Add a token. Return the length of a span that fills the window at least twice, or None."""
        self._ids.append(id_)
        if len(self._ids) < self._window:
            return None
        period = _period(list(self._ids))
        return period if 2 * period <= self._window else None


def _period(ids: list[int]) -> int:
    """Return the length of the shortest span whose repetition, cut off at the end, gives `ids`.

    Uses the failure function of Knuth, Morris and Pratt (1977), in linear time.
    """
    border = [0] * len(ids)
    length = 0
    for at in range(1, len(ids)):
        while length and ids[at] != ids[length]:
            length = border[length - 1]
        length += ids[at] == ids[length]
        border[at] = length
    return len(ids) - border[-1]
