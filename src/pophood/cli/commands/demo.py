"""`pophood demo`: ten continuations of the talk's prompt, its tokens, the likeliest next ones, the speed."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pophood.cli.app import INTERRUPTED, QUESTION
from pophood.cli.options.shared import ModelChoice, json_option, model_options, verb
from pophood.cli.page import percent
from pophood.cli.screens.generation import RunResult, generate
from pophood.cli.session import open_model, this_command
from pophood.cli.terminal.console import Console, facts_of, visible
from pophood.cli.terminal.outputs import Outputs, completion
from pophood.cli.terminal.tables import count, seconds, table

if TYPE_CHECKING:
    from pophood.generate import Token
    from pophood.model.lm import LM

PROMPT = "The capital of Spain is"
SAMPLES, NEW_TOKENS, TOP_K, TEMPERATURE = 10, 10, 40, 0.8
SEED = 42  # as in the talk
TALK_SECONDS = 0.17  # page 11 of the talk: gpt2 generates ten tokens on the speaker's laptop
BAR_CELLS = 24


@verb()
@json_option
@model_options
def demo_command(console: Console, as_json: bool, choice: ModelChoice) -> int:
    """Show in ten seconds what a language model does.

    Continues "The capital of Spain is" ten times, counts the first words beside the model's probabilities,
    and shows the prompt's tokens, the ten likeliest next ones, and the speed.

    Example: pophood demo
    """
    demo = show_demo(console, choice, silent=as_json)
    if as_json and not demo.interrupted:
        console.json(demo.as_dict())
    return INTERRUPTED if demo.interrupted else 0


@dataclass(frozen=True, slots=True)
class FirstWord:
    """A first word: its count, its probability, and its chance after top-k and temperature."""

    word: str
    count: int
    probability: float
    chance: float


@dataclass(frozen=True, slots=True)
class Demo:
    """The results of the demo: one text generated alone, and ten as a batch."""

    lm: LM
    alone: RunResult
    ten: RunResult

    @property
    def interrupted(self) -> bool:
        """True if Ctrl-C ended it."""
        return self.alone.interrupted or self.ten.interrupted

    def as_dict(self) -> dict[str, Any]:
        """Return the results as a dictionary for --json."""
        return self.ten.as_dict(self.lm, PROMPT) | {
            "first_words": [asdict(word) for word in first_words(self.ten.outputs)],
            "tokens": list(self.lm.tokens(PROMPT)),
            "next": list(self.lm.next(PROMPT, 10)),
            "alone": facts_of(self.alone, seconds="seconds", tokens="count") | {"talk_seconds": TALK_SECONDS},
        }


def show_demo(console: Console, choice: ModelChoice, *, silent: bool = False) -> Demo:
    """Run the demo, and print it unless `silent`."""
    lm = open_model(console, choice)
    # The single text comes first, so that its time includes the prompt, as in the talk; later it is cached.
    alone = _run(console, lm, samples=1, silent=True)
    if alone.interrupted:
        return Demo(lm, alone, alone)
    if not silent:
        console.out(f"Prompt: {PROMPT}\n")
    ten = _run(console, lm, samples=SAMPLES, silent=silent)
    if not silent and not ten.interrupted:
        commands = suggestions(this_command(), choice, chat=lm.chat_template is not None)
        try_next = "\n  ".join(["Try next:", *map(visible, commands)])
        blocks = (*_tables(lm, first_words(ten.outputs)), _speed_text(alone, ten), try_next)
        console.paint("\n" + "\n\n".join(blocks) + "\n")
    return Demo(lm, alone, ten)


def _run(console: Console, lm: LM, samples: int, silent: bool) -> RunResult:
    run = lm.stream(
        PROMPT,
        max_tokens=NEW_TOKENS,
        samples=samples,
        seed=SEED,
        top_k=TOP_K,
        temperature=TEMPERATURE,
        details=samples > 1,
    )
    return generate(console, run, Outputs(console, PROMPT, samples, silent=silent))


def first_words(outputs: Sequence[Sequence[Token]]) -> list[FirstWord]:
    """Return the first word of every continuation, the most frequent first.

    A word's probability is the product of the conditional probabilities of its tokens.
    """
    counts: Counter[str] = Counter()
    shares: dict[str, tuple[float, float]] = {}
    for tokens in outputs:
        text = completion(tokens)
        match = re.match(r"\s*(\w[\w'’-]*|\S)", text)
        end = match.end() if match else len(text)
        used, length = [], 0
        for token in tokens:
            if length >= end:
                break
            used.append(token)
            length += len(token.text)
        word = text[:end].strip() or "(nothing)"
        counts[word] += 1
        shares[word] = (
            math.prod(token.probability or 0.0 for token in used),
            math.prod(token.final_probability for token in used),
        )
    return [FirstWord(word, n, *shares[word]) for word, n in counts.most_common()]


def _tables(lm: LM, words: list[FirstWord]) -> tuple[str, str, str]:
    """Return the tables of first words, of the prompt's tokens, and of the likeliest next ones."""
    from pophood.cli.terminal.display import Display
    from pophood.cli.terminal.view_screen import rows, with_bars

    display = Display.of(sys.stdout)
    cells = [[w.word, w.count, percent(w.chance), percent(w.probability)] for w in words]
    headings = ["first word", "drawn", "its chance", "the model's probability"]
    notes = f"(its chance: after top-k {TOP_K} and temperature {TEMPERATURE:g}; the model's: before)"
    lines = table(headings, cells, sys.stdout, right=[1, 2, 3]).splitlines()
    likeliest = replace(lm.next(PROMPT, 10), decimals={"logit": 3})
    return (
        f"{with_bars(lines, [w.probability for w in words], BAR_CELLS, display)}\n{notes}",
        f"The prompt as tokens:\n{rows(lm.tokens(PROMPT), display)}",
        f"The ten likeliest next tokens:\n{rows(likeliest, display)}",
    )


def _speed_text(alone: RunResult, ten: RunResult) -> str:
    return (
        f"Time: {seconds(alone.seconds)} (CPU) for one text of {count(alone.count, 'new token')}, "
        f"{alone.count / alone.seconds:.0f} tokens/s; the talk's: {TALK_SECONDS} s\n"
        f"All ten as one batch: {seconds(ten.seconds)}, {ten.count / ten.seconds:.0f} tokens/s"
    )


def suggestions(me: str, choice: ModelChoice, *, chat: bool) -> list[str]:
    """Return commands to try next with the same model; `me` is the command that starts pophood."""
    model = choice.typed()
    shown = f" {shlex.quote(choice.name)}" if choice.name else ""
    return [
        f'{me} run{model} "{PROMPT}" --greedy',
        f'{me} run{model} "Once upon a time" --html story.html',
        f'{me} chat{model} "{QUESTION}" --greedy' if chat else f"{me} show{shown}",
    ]
