"""The table of views on the command line: the help and options of each, and how they become arguments.

A view's function is `pophood.look.NAME`; an option has the name of the function's parameter, and an option
that is not given leaves the parameter at its default. Imports no view and no model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from pophood.cli.commands.look.options import (
    OUTPUT_OPTIONS,
    Destinations,
    Text,
    deliver,
    look_model_options,
    text_of,
    text_options,
    view_option,
)
from pophood.cli.options.shared import Decorator, ModelChoice, text_option, verb, with_options
from pophood.cli.terminal.console import Console

Prepare = Callable[[Text, dict[str, Any]], object]  # the text of the view; may check or change options


@dataclass(frozen=True, slots=True)
class ViewCommand:
    """One command: its help, whether its view reads a text, and the options of its own."""

    summary: str
    examples: tuple[str, ...]
    details: str = ""
    options: tuple[Decorator, ...] = ()
    reads_text: bool = True
    prepare: Prepare = lambda read, options: read.text


def view_command(name: str) -> click.Command:
    """Return the command `pophood look NAME`."""
    view = VIEW_COMMANDS[name]

    def command(
        console: Console,
        choice: ModelChoice,
        text: str | None = None,
        file: str | None = None,
        **options: Any,
    ) -> int:
        from pophood import look
        from pophood.cli.session import open_model

        to = Destinations(**{one.name: options.pop(one.name) for one in fields(Destinations)})
        ids = options.pop("ids", None)
        if ids is not None and (text is not None or file is not None):
            raise click.UsageError("--ids are the tokens of the text: leave the text and --file out")
        texts: list[object] = []
        if view.reads_text:
            read = text_of(console, text, file) if ids is None else Text(given=True)
            prepared = view.prepare(read, options)
            texts = [prepared if ids is None else ids]
        given = {option: value for option, value in options.items() if value is not None}
        to.check()
        lm = open_model(console, choice)
        return deliver(console, getattr(look, name)(lm, *texts, **given), to)

    reading: list[Decorator] = [text_options, IDS] if view.reads_text else []
    decorators: list[Decorator] = [*reading, *OUTPUT_OPTIONS, look_model_options, *view.options]
    paragraphs = [view.summary, view.details, *(f"Example: pophood look {one}" for one in view.examples)]
    help_text = "\n\n".join(filter(None, paragraphs))
    return verb(name=name, help=help_text)(with_options(command, decorators))


def _norm(read: Text, options: dict[str, Any]) -> object:
    if options["which"] == "final" and options["layer"] is not None:
        raise click.UsageError("--which final is the norm after the last block; it takes no --layer")
    return read.text


def _surprise(read: Text, options: dict[str, Any]) -> object:
    return Path(read.file) if read.file is not None else read.text  # a file is read in windows


def _tokens(read: Text, options: dict[str, Any]) -> object:
    compare: tuple[str, ...] = options.pop("compare")
    if options["languages"] and (compare or read.given):
        other = "--compare" if compare else "a text"
        raise click.UsageError(f"--languages compares one sentence of its own; it takes no {other}")
    return [read.text, *compare] if compare else read.text


def ids_of(text: str) -> list[int]:
    """Parse token ids.

    >>> ids_of("464,3139")
    [464, 3139]
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"{text!r}; wanted token ids, as in 464,3139") from None


IDS = text_option("--ids", type=ids_of, metavar="N,N...", help="Token ids instead of a text.")
number_option = functools.partial(view_option, type=int)
share_option = functools.partial(view_option, type=float, metavar="P")
LAYER = number_option("--layer", default=0, help="The block, from 0; -1 is the last.")
K = number_option("-k", "--k", "k", default=10, help="How many tokens are listed.")

# In the order of the talk.
VIEW_COMMANDS = {
    "architecture": ViewCommand(
        "Draw the model from its configuration, with shapes and parameter counts.",
        ("architecture -m gpt2",),
        reads_text=False,
    ),
    "parameters": ViewCommand(
        "Show where the parameters are.",
        ("parameters --save parameters.html --open",),
        reads_text=False,
    ),
    "scale": ViewCommand(
        "Compare the model's size with the six models of the talk.",
        ("scale --add Mine,1.5B,2025",),
        "Published figures and estimates are marked.",
        (
            view_option(
                "--add",
                multiple=True,
                metavar="NAME,PARAMS,YEAR",
                help="One more model, as in Mine,1.5B,2025; repeatable.",
            ),
        ),
        reads_text=False,
    ),
    "tokens": ViewCommand(
        "Show how the text is split into tokens.",
        ('tokens "color" --compare "colour"', "tokens --languages"),
        options=(
            view_option("--compare", multiple=True, help="Another text to compare with; repeatable."),
            view_option("--languages", is_flag=True, help="Compare one sentence in five languages instead."),
        ),
        prepare=_tokens,
    ),
    "embeddings": ViewCommand(
        "Draw words by their rows of the token embedding matrix.",
        ("embeddings --words cities --spaced", 'embeddings --neighbours " Madrid"'),
        options=(
            view_option(
                "--words",
                default="family",
                metavar="LIST",
                help="family or cities (the talk's words), or a file with one word a line.",
            ),
            view_option(
                "--spaced/--unspaced",
                default=False,
                help="Give each word a leading space, as inside a text, where it is more often one token.",
            ),
            view_option(
                "--neighbours",
                "--word",
                "word",
                metavar="WORD",
                help="The word whose nearest tokens are listed.",
            ),
            K,
        ),
        reads_text=False,
    ),
    "positions": ViewCommand(
        "Show how the model encodes the position of a token.",
        ('positions --sentences "the dog bit the man" "the man bit the dog"',),
        options=(
            view_option(
                "--sentences",
                nargs=2,
                default=None,
                metavar="ONE OTHER",
                help="Two sentences of the same words (default: the talk's cat and mouse).",
            ),
        ),
        reads_text=False,
    ),
    "before": ViewCommand(
        "Show what happens before the first block: token row + position row.",
        ('before "The capital of Spain is"',),
    ),
    "hidden": ViewCommand(
        "Follow the hidden states through the model.",
        ('hidden "The capital of Spain is"',),
    ),
    "norm": ViewCommand(
        "Show what a norm does to every token, in three steps.",
        ("norm --layer 3 --which ln_2",),
        "Before, normalised (mean 0, variance 1), and after gain and shift.",
        (
            number_option("--layer", help="The block, from 0 (the default); -1 is the last."),
            view_option(
                "--which",
                metavar="NORM",
                help="ln_1 (before attention), ln_2 (before feed-forward) or final; in models with norms "
                "after them, ln_1_post and ln_2_post. Default: the block's first.",
            ),
        ),
        prepare=_norm,
    ),
    "residual": ViewCommand(
        "Show what attention and feed-forward add in every block.",
        ('residual "The capital of Spain is" --save residual.svg',),
    ),
    "dropout": ViewCommand(
        "Demonstrate dropout on the real outputs of attention.",
        ("dropout --p 0.1 --seed 42",),
        "Dropout acts only in training; inference uses none.",
        (
            share_option("--p", default=0.1, help="The share that is dropped."),
            number_option("--seed", default=42, help="The seed of the mask."),
            LAYER,
        ),
    ),
    "attention": ViewCommand(
        "Show where each token looks, head by head.",
        ('attention "The capital of Spain is" --layer 4 --head 11',),
        options=(
            number_option(
                "--layer",
                help="The block, from 0; -1 is the last (default: that of the most informative head).",
            ),
            number_option("--head", help="The head shown large (default: the most informative one)."),
        ),
    ),
    "feedforward": ViewCommand(
        "Show the strongest neurons for a token, and the tokens they promote.",
        ("feedforward --layer 11 --token -1",),
        options=(
            LAYER,
            number_option("--token", default=-1, help="The token's position, from 0; -1 is the last."),
        ),
    ),
    "output": ViewCommand(
        "Compute the logits and the softmax by hand.",
        ('output "The capital of Spain is"',),
        options=(K,),
    ),
    "next": ViewCommand(
        "List the likeliest next tokens, and the effect of sampling settings on them.",
        ('next "The capital of Spain is" -k 5 --top-p 0.9',),
        options=(
            K,
            view_option(
                "--temperature", type=float, metavar="T", help="Show the effect of this temperature."
            ),
            number_option("--top-k", help="Show the effect of keeping the N likeliest."),
            share_option("--top-p", help="Show the effect of keeping a nucleus of this probability."),
            share_option(
                "--min-p", help="Show the effect of keeping P times the largest probability and more."
            ),
        ),
    ),
    "surprise": ViewCommand(
        "Colour every token by how surprising it is to the model.",
        ("surprise --file notes.txt --save surprise.html",),
        "The measure is surprisal: -log2 of the token's probability, in bits.",
        options=(
            number_option("--window", help="Tokens that the model reads at once (default: its context)."),
        ),
        prepare=_surprise,
    ),
    "lens": ViewCommand(
        "Show the model's guess after every block.",
        ('lens "The capital of Spain is" --token " Madrid"',),
        options=(
            view_option(
                "--token",
                metavar="TOKEN",
                help='The token that is followed, as in " Madrid" (default: the final choice).',
            ),
            number_option(
                "--position", default=-1, help="The position after which the model guesses; -1 is the last."
            ),
            number_option("--most", help="The most positions that the map shows."),
        ),
    ),
}
