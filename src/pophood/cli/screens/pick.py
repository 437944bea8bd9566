"""`pophood run --pick` at a terminal or through a pipe: the user picks each token among the likeliest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.app import DONE, INTERRUPTED
from pophood.cli.screens.generation import Shape, model_facts
from pophood.cli.terminal.answers import Answers
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.tables import bar, count, table
from pophood.errors import BadInput
from pophood.table import show

if TYPE_CHECKING:
    from pophood.cli.options.sampling import SamplingArgs
    from pophood.model.lm import LM
    from pophood.pick import Picker, TokenOption

BAR = 24
ENDS = {"stop": "a stop token", "length": "the token limit", "context": "a full context"}
KEYS = "a number takes that token, Enter the likeliest, b goes back, q ends"


def check(file: str | None, text: str | None, shape: Shape, sampling: SamplingArgs) -> None:
    """Raise UsageError for sampling and output options, and for a prompt from stdin, which --pick reads."""
    drawn = bool(sampling.settings or sampling.bias or sampling.breakers or sampling.model_defaults)
    refused = {
        "--samples": shape.samples > 1,
        "--html": shape.html is not None,
        "--seed": "seed" in sampling.limits,
        "--stop": "stop" in sampling.limits,
        "a form such as --regex": "grammar" in sampling.limits,
        "sampling options such as --temperature": drawn,
    }
    named = ", ".join(name for name, given in refused.items() if given)
    if named:
        raise click.UsageError(f"--pick lets you choose each token of one text; it takes no {named}")
    if "-" in (file, text) or (file is None and text is None):
        raise click.UsageError(
            '--pick reads your choices from stdin: give the prompt as "TEXT" or with --file'
        )


def run(console: Console, lm: LM, ids: list[int], prompt: str, sampling: SamplingArgs, shape: Shape) -> int:
    """Let the user pick a text token by token, and return the exit code."""
    from pophood.pick import Picker

    plan = lm.stream(ids, truncate=shape.truncate, max_tokens=sampling.limits.get("max_tokens"))
    if plan.truncation is not None:
        console.say(f"truncated: {plan.truncation}")
    with Picker(
        lm.engine,
        lm.bundle.tokenizer,
        plan.prompt_ids,
        most=plan.settings.max_tokens,
        special=sampling.limits.get("special", False),
    ) as picker:
        say = console.say if shape.as_json else console.out
        interrupted = _walk(say, picker, prompt)
        finish = picker.ended or "you"
        if shape.as_json:
            console.json(_as_dict(lm, picker, prompt, finish, interrupted))
        else:
            _path(console, picker, prompt, shape.show_prompt)
        end = "by Ctrl-C" if interrupted else f"at {ENDS[finish]}" if finish in ENDS else "by you"
        console.say(f"{count(len(picker.picks), 'token')} picked; ended {end}")
    return INTERRUPTED if interrupted else DONE


def _walk(say: Callable[[str], None], picker: Picker, prompt: str) -> bool:
    """Take picks until the user or the text ends. Return True if Ctrl-C ended it."""
    answers = Answers(sys.stdin)
    say(KEYS)
    fresh = True
    try:
        while True:
            if fresh:
                say("")
                say(prompt + picker.text)
                end = picker.ended
                say(f"the text ends here, at {ENDS[end]}" if end else _menu(picker.options))
            ends = picker.ended is not None
            answer = answers.ask("Enter to end, b to go back: " if ends else "> ")
            if answer is None or answer.strip().lower() in ("q", "quit") or (ends and not answer.strip()):
                return False
            try:
                reply = _do(picker, answer.strip().lower())
                fresh = True
            except BadInput as error:
                reply, fresh = f"{error}; {KEYS}", False
            say(reply)
    except KeyboardInterrupt:
        say("")
        return True


def _do(picker: Picker, answer: str) -> str:
    if answer == "b":
        return f"back: {show(picker.back().option.text)} is undone"
    if answer and not (answer.isascii() and answer.isdigit()):
        raise BadInput(f"{answer!r} is not a choice")
    pick = picker.pick(int(answer[:9]) if answer else 1)
    return f"-> {show(pick.option.text)} ({pick.option.probability:.4f})"


def _menu(options: tuple[TokenOption, ...]) -> str:
    rows = [
        (number, show(one.text), f"{one.probability:.4f}", bar(one.probability, BAR, sys.stdout))
        for number, one in enumerate(options, 1)
    ]
    return table(("", "token", "probability", ""), rows, sys.stdout, right=[0, 2])


def _path(console: Console, picker: Picker, prompt: str, show_prompt: bool) -> None:
    """Print the picks and the text."""
    if picker.picks:
        rows = [
            (step, pick.number, show(pick.option.text), f"{pick.option.probability:.4f}")
            for step, pick in enumerate(picker.picks, 1)
        ]
        console.out("")
        console.out(table(("step", "number", "token", "probability"), rows, sys.stdout, right=[0, 1, 3]))
        console.out(f"probability of this path: {picker.probability:.2g}")
    console.out("")
    console.write(prompt if show_prompt else "", bold=True)
    console.out(picker.text)


def _as_dict(lm: LM, picker: Picker, prompt: str, finish: str, interrupted: bool) -> dict[str, Any]:
    return {
        **model_facts(lm),
        "file": str(lm.path),
        "prompt": prompt,
        "prompt_ids": list(picker.prompt_ids),
        "text": prompt + picker.text,
        "completion": picker.text,
        "probability": picker.probability,
        "finish": finish,
        "interrupted": interrupted,
        "picks": [
            {"number": pick.number, **asdict(pick.option), "options": [asdict(one) for one in pick.options]}
            for pick in picker.picks
        ],
    }
