"""The options of every `look` command, and the delivery of its view to the terminal, files or a browser."""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.options.prompt import piped_alone, read_prompt, with_piped
from pophood.cli.options.shared import (
    file_option,
    json_option,
    model_options,
    option,
    output_option,
    with_options,
)
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput
from pophood.plaintext import decode

if TYPE_CHECKING:
    from pophood.look.view import View

view_option = functools.partial(option, section="View")
text_options = functools.partial(
    with_options, options=(click.argument("text", required=False, metavar="[TEXT]"), file_option)
)
look_model_options = functools.partial(model_options, precision="f32")
OUTPUT_OPTIONS = (
    output_option(
        "--save",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Write .svg, .png, .html, .csv, .json or .npz, by the ending; repeatable.",
    ),
    output_option("--open", "open_it", is_flag=True, help="Show the view as a page in a browser."),
    output_option("--csv", "as_csv", is_flag=True, help="Print the first table as comma-separated values."),
    json_option,
    output_option(
        "--theme",
        type=click.Choice(["light", "dark"]),
        default="light",
        help="Colours of .svg and .png; pages have both.",
    ),
)


@dataclass(frozen=True, slots=True)
class Destinations:
    """The files, data format and browser that a view goes to; the terminal if there are none."""

    save: tuple[Path, ...]
    open_it: bool
    as_json: bool
    as_csv: bool
    theme: str

    def check(self) -> None:
        """Refuse contradictions and paths that cannot be written, before a model is loaded."""
        if self.as_json and self.as_csv:
            raise click.UsageError("--json and --csv both take stdout: give one")
        if self.theme != "light" and not {path.suffix.lower() for path in self.save} & {".svg", ".png"}:
            raise click.UsageError(
                f"--theme {self.theme} colours a picture: add --save FILE.svg or FILE.png (pages have both)"
            )
        if self.save or self.open_it:
            from pophood.look.figures import has_drawings, require
            from pophood.look.figures.saving import PICTURES, ending

            endings = {ending(path) for path in self.save} | ({".html"} if self.open_it else set())
            if endings & set(PICTURES) - ({".html"} if has_drawings() else set()):
                require()


@dataclass(frozen=True, slots=True)
class Text:
    """A text to look at."""

    text: str = ""  # "" for a view that reads no text
    file: str | None = None  # the file that holds the whole text, if there is one
    given: bool = False  # whether it was typed, piped or read from a file; otherwise it is the talk's prompt


def text_of(console: Console, typed: str | None, file: str | None) -> Text:
    """Return the text that was piped, typed or read from a file, else the talk's; BadInput if it is empty."""
    from pophood.look.source import PROMPT

    if typed is None and file is None:
        prompt = piped_alone(console)
        if prompt is None:
            return Text(PROMPT)
    else:
        prompt = with_piped(console, read_prompt(typed, file))
    text = decode(prompt.data, prompt.origin)
    if not text:
        raise BadInput(f'the text is empty: give at least one word, or none at all for "{PROMPT}"')
    return Text(text, file if prompt.origin == file else None, given=True)


def deliver(console: Console, view: View, to: Destinations) -> int:
    """Report the precision, then save, open and print the view; returns the exit code."""
    source = view.source
    console.say(f"computed at {source.precision}; run takes {source.run_precision}")
    hand_out(console, view, to, text=not to.save and not to.open_it)
    return 0


def hand_out(console: Console, view: View, to: Destinations, *, text: bool) -> None:
    """Save and open the view, and print it: as data if that was asked for, else with `text` as text."""
    try:
        for path in to.save:
            view.save(path, "dark" if to.theme == "dark" else "light")
            console.say(f"saved: {path}{_which_table(view, path)}{_plain(path)}")
        if to.open_it:
            _open(console, view, to.save)
    finally:  # a full disk does not cost what was computed
        if to.as_json:
            console.json(json.loads(view.to_json()))
        elif to.as_csv:
            console.write(view.to_csv())
        elif text:
            from pophood.cli.terminal.display import Display
            from pophood.cli.terminal.view_screen import lay_out

            console.paint(lay_out(view, Display.of(sys.stdout)))


def _open(console: Console, view: View, saved: tuple[Path, ...]) -> None:
    page = next((path for path in saved if path.suffix.lower() in (".html", ".svg", ".png")), None)
    if page is None:
        page = Path(tempfile.mkdtemp(prefix="pophood-")) / f"{view.name}.html"
        view.save(page)
        console.say(f"page: {page}")
    console.open_page(page)


def _plain(path: Path) -> str:
    """Return a remark about a page that could have drawings and has none."""
    from pophood.look.figures import has_drawings

    if path.suffix.lower() != ".html" or has_drawings():
        return ""
    return " (a plain picture: `make studio` builds the scripts that draw)"


def _which_table(view: View, path: Path) -> str:
    tables = list(view.tables())
    if path.suffix.lower() != ".csv" or len(tables) == 1:
        return ""
    return f" (table {tables[0]} of {', '.join(tables)}; .json has all)"
