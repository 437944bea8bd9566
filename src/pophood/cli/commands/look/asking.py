"""What every `look` command asks for: a text, a model, and where the view is to go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pophood.cli.options.prompt import piped_alone, read_prompt, with_piped
from pophood.cli.options.shared import ModelChoice, json_option, model_options, option, verb
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput
from pophood.plaintext import decode

if TYPE_CHECKING:
    from pophood.look.view import View
    from pophood.model.lm import LM

F = TypeVar("F", bound=Callable[..., Any])
at = functools.partial(option, section="View")
to = functools.partial(option, section="Output")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a view goes; to the terminal if nowhere else."""

    save: tuple[Path, ...]
    open_it: bool
    as_json: bool
    as_csv: bool
    theme: str

    def check(self) -> None:
        """Refuse what contradicts itself or cannot be written, before a model is loaded."""
        if self.as_json and self.as_csv:
            raise click.UsageError("--json and --csv both take stdout: give one")
        if self.theme != "light" and not {path.suffix.lower() for path in self.save} & {".svg", ".png"}:
            raise click.UsageError(
                f"--theme {self.theme} colours a picture: add --save FILE.svg or FILE.png (pages have both)"
            )
        if self.save or self.open_it:
            from pophood.look.figures import require
            from pophood.look.figures.saving import PICTURES, ending

            endings = [ending(path) for path in self.save]
            if self.open_it or set(endings) & set(PICTURES):
                require()


@dataclass(frozen=True, slots=True)
class Text:
    """A text to look at, the file that is all of it, if there is one, and whether the user gave it."""

    text: str
    file: str | None
    given: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """One `look` command as it was typed, without the options of its own view."""

    console: Console
    choice: ModelChoice
    outputs: Outputs
    text: str  # "" for a view without
    file: str | None  # the file that holds all of it, if there is one
    given: bool  # whether the text was typed, piped or read; otherwise it is the talk's

    def show(self, make: Callable[[LM], View]) -> int:
        """Load the model, make the view, and bring it where it was wanted; returns the exit code."""
        from pophood.cli.commands.look.showing import deliver
        from pophood.cli.session import open_model

        self.outputs.check()
        lm = open_model(self.console, self.choice)
        return deliver(self.console, make(lm), self.outputs)


def looking(*, text: bool = True) -> Callable[[F], click.Command]:
    """Make a function with an `Ask` a command below `look`; `text`: whether its view reads one."""

    reads = text

    def decorate(function: F) -> click.Command:
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
            outputs = Outputs(save, open_it, as_json, as_csv, theme)
            found = text_of(console, text, file) if reads else Text("", None, given=False)
            code: int = function(Ask(console, choice, outputs, found.text, found.file, found.given), **own)
            return code

        command = output_options(look_model_options(command))
        return verb()(text_options(command) if text else command)

    return decorate


def text_of(console: Console, typed: str | None, file: str | None) -> Text:
    """The text to look at: piped, typed, from a file, or the talk's. Raises BadInput for an empty one."""
    from pophood.look.view import PROMPT

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
    """Add -m and what belongs to loading, at f32 unless told otherwise."""
    return model_options(function, precision="f32")


def output_options(function: F) -> F:
    """Add --save, --open, --json, --csv and --theme."""
    for add in (
        to(
            "--theme",
            type=click.Choice(["light", "dark"]),
            default="light",
            show_default=True,
            help="Colours of .svg and .png; pages have both.",
        ),
        json_option,
        to("--csv", "as_csv", is_flag=True, help="Print the first table as comma-separated values."),
        to("--open", "open_it", is_flag=True, help="Show the view as a page in a browser."),
        to(
            "--save",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write .svg, .png, .html, .csv, .json or .npz, by the ending; may be repeated.",
        ),
    ):
        function = add(function)
    return function
