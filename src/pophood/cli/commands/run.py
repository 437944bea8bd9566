"""`pophood run "TEXT"`: continue a text and stream the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.app import INTERRUPTED
from pophood.cli.options.grammar import grammar_options
from pophood.cli.options.prompt import read_prompt, with_piped
from pophood.cli.options.sampling import SamplingArgs, sampling_options
from pophood.cli.options.shared import (
    ModelChoice,
    file_option,
    json_option,
    model_options,
    output_option,
    text_option,
    verb,
)
from pophood.cli.screens.generation import RunResult, Shape, generate, settings_of
from pophood.cli.session import open_model
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.outputs import Outputs

if TYPE_CHECKING:
    from pophood.model.lm import LM


@verb()
@click.argument("text", required=False, metavar="[PROMPT]")
@file_option
@text_option("--keep-newline", is_flag=True, help="Keep the line break that ends a file or piped text.")
@text_option("--replace-invalid", is_flag=True, help="Read invalid UTF-8 as U+FFFD, and count it.")
@text_option("--parse-special", is_flag=True, help="Read special tokens in the text as tokens, not as text.")
@text_option(
    "--truncate",
    type=click.Choice(["error", "left", "middle"]),
    default="error",
    help="If the prompt exceeds the context window: refuse it, or drop its left or middle part.",
)
@output_option(
    "--samples", type=click.IntRange(1, 1000), default=1, help="Continue the text N times, as one batch."
)
@output_option("--pick", "picked", is_flag=True, help="Pick each token from the 10 likeliest; b goes back.")
@output_option("--no-prompt", is_flag=True, help="Print the continuation only.")
@output_option(
    "--html",
    type=click.Path(path_type=Path),
    help="Write a page that shows the model's probabilities at every token.",
)
@output_option("--open", "open_page", is_flag=True, help="Show that page in a browser.")
@json_option
@model_options
@sampling_options
@grammar_options
def run_command(
    console: Console,
    text: str | None,
    file: str | None,
    keep_newline: bool,
    replace_invalid: bool,
    parse_special: bool,
    truncate: str,
    samples: int,
    picked: bool,
    no_prompt: bool,
    html: Path | None,
    open_page: bool,
    as_json: bool,
    choice: ModelChoice,
    sampling: SamplingArgs,
) -> int:
    """Continue a text, token by token.

    The prompt is the argument, a file, or stdin. If there is a prompt or a file, piped text goes before it,
    separated by a blank line. The text goes to stdout as it is generated, everything else to stderr.

    Example: pophood run "The capital of Spain is" --samples 10

    Example: pophood run "The capital of Spain is" --greedy --html page.html --open

    Example: pophood run "The capital of Spain is" --pick
    """
    from pophood.cli.screens import pick

    shape = Shape(samples, as_json, html, open_page, not no_prompt, truncate)
    shape.check()
    if picked:
        pick.check(file, text, shape, sampling)
    sampling.check()
    prompt = read_prompt(text, file, keep_newline)
    lm = open_model(console, choice)
    if lm.chat_template is not None:
        console.say(f"{lm.name} is a chat model: `pophood chat` talks with it in its own format")
    if not picked:
        prompt = with_piped(console, prompt, keep_newline)
    tokenizer = lm.bundle.tokenizer
    ids = prompt.ids(tokenizer, console, replace_invalid=replace_invalid, parse_special=parse_special)
    if picked:
        return pick.run(console, lm, ids, prompt.text, sampling, shape)
    return _continue(console, lm, ids, prompt.text, sampling, shape)


def _continue(
    console: Console, lm: LM, ids: list[int], prompt: str, sampling: SamplingArgs, shape: Shape
) -> int:
    """Generate, print, write the HTML page if requested, and return the exit code."""
    run = lm.stream(
        ids,
        samples=shape.samples,
        details=shape.as_json or shape.html is not None,
        truncate=shape.truncate,
        **settings_of(sampling, lm),
    )
    outputs = Outputs(console, prompt, shape.samples, show_prompt=shape.show_prompt, silent=shape.as_json)
    finished = generate(console, run, outputs)
    if shape.as_json:
        console.json(finished.as_dict(lm, prompt))
    if shape.html is not None:
        _write_page(console, lm, prompt, finished, shape)
    console.say(finished.summary())
    return INTERRUPTED if finished.interrupted else 0


def _write_page(console: Console, lm: LM, prompt: str, finished: RunResult, shape: Shape) -> None:
    from pophood import system
    from pophood.cli.page import render
    from pophood.look.source import ViewSource
    from pophood.sampling import chain

    assert shape.html is not None
    facts = {
        "Model": lm.name,
        **({"Adapters": ", ".join(ViewSource.of(lm).adapter_names())} if lm.adapters else {}),
        "Precision": lm.engine.precision,
        "File": lm.path.name,
        "Sampling": chain(finished.settings.sampling).describe(),
        "Seed": "none needed (greedy)" if finished.settings.sampling.greedy else str(finished.seed),
        "Made": finished.figures(),
    }
    page = render(prompt, finished.outputs, facts, lm.bundle.tokenizer.token_text)
    system.atomic_write(shape.html, page.encode("utf-8"))
    console.say(f"page: {shape.html}")
    if shape.open_page:
        console.open_page(shape.html)
