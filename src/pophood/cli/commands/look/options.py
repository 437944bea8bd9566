"""The options that every `look` command has: a text, a model, and where the view goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pophood.cli.commands.look.delivery import Destinations, deliver
from pophood.cli.options.prompt import piped_alone, read_prompt, with_piped
from pophood.cli.options.shared import ModelChoice, json_option, model_options, option, verb
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput
from pophood.plaintext import decode

if TYPE_CHECKING:
    from pophood.look.view import View
    from pophood.model.lm import LM

F = TypeVar("F", bound=Callable[..., Any])
view_option = functools.partial(option, section="View")
output_option = functools.partial(option, section="Output")


@dataclass(frozen=True, slots=True)
class Text:
    """A text to look at, the file that holds all of it, if there is one, and whether the user gave it."""

    text: str
    file: str | None
    given: bool


@dataclass(frozen=True, slots=True)
class Request:
    """One `look` command as it was typed, without its view's own options."""

    console: Console
    choice: ModelChoice
    destinations: Destinations
    text: str  # "" for a view that reads no text
    file: str | None  # the file that holds the whole text, if there is one
    given: bool  # whether the text was typed, piped or read from a file; otherwise it is the talk's prompt

    def show(self, make: Callable[[LM], View]) -> int:
        """Load the model, compute the view and deliver it; returns the exit code."""
        from pophood.cli.session import open_model

        self.destinations.check()
        lm = open_model(self.console, self.choice)
        return deliver(self.console, make(lm), self.destinations)


def looking(name: str, help: str, *, text: bool) -> Callable[[Callable[..., int]], click.Command]:  # noqa: A002
    """Turn a function of a `Request` into a command; `text` says whether its view reads a text."""
    reads = text

    def decorate(function: Callable[..., int]) -> click.Command:
        @functools.wraps(function)
        def command(
            console: Console,
            choice: ModelChoice,
            save: tuple[Path, ...],
            open_it: bool,
            as_json: bool,
            as_csv: bool,
            theme: str,
            text: str | None = None,
            file: str | None = None,
            **own: Any,
        ) -> int:
            destinations = Destinations(save, open_it, as_json, as_csv, theme)
            read = text_of(console, text, file) if reads else Text("", None, given=False)
            return function(Request(console, choice, destinations, read.text, read.file, read.given), **own)

        command = output_options(look_model_options(command))
        return verb(name=name, help=help)(text_options(command) if reads else command)

    return decorate


def text_of(console: Console, typed: str | None, file: str | None) -> Text:
    """Return the text that was piped, typed or read from a file, or the talk's; BadInput if it is empty."""
    from pophood.look.source import PROMPT

    if typed is None and file is None:
        prompt = piped_alone(console)
        if prompt is None:
            return Text(PROMPT, None, given=False)
    else:
        prompt = with_piped(console, read_prompt(typed, file))
    text = decode(prompt.data, prompt.origin)
    if not text:
        raise BadInput(f'the text is empty: give at least one word, or none at all for "{PROMPT}"')
    return Text(text, file if prompt.origin == file else None, given=True)


def text_options(function: F) -> F:
    """Add TEXT and --file."""
    file = option(
        "-f",
        "--file",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        section="Text",
        help="Read the text from a file in UTF-8 (- is stdin).",
    )
    return click.argument("text", required=False, metavar="[TEXT]")(file(function))


def look_model_options(function: F) -> F:
    """Add -m and the other options of loading a model, with f32 as the default precision."""
    return model_options(function, precision="f32")


def output_options(function: F) -> F:
    """Add --save, --open, --json, --csv and --theme."""
    for add in (
        output_option(
            "--theme",
            type=click.Choice(["light", "dark"]),
            default="light",
            show_default=True,
            help="Colours of .svg and .png; pages have both.",
        ),
        json_option,
        output_option(
            "--csv", "as_csv", is_flag=True, help="Print the first table as comma-separated values."
        ),
        output_option("--open", "open_it", is_flag=True, help="Show the view as a page in a browser."),
        output_option(
            "--save",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write .svg, .png, .html, .csv, .json or .npz, by the ending; may be repeated.",
        ),
    ):
        function = add(function)
    return function
