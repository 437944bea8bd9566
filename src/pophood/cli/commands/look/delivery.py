"""Delivery of a computed view: to the terminal, standard output as data, files, a browser."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.terminal.console import Console

if TYPE_CHECKING:
    from pophood.look.view import View


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
            from pophood.look.figures import require
            from pophood.look.figures.saving import PICTURES, ending

            endings = [ending(path) for path in self.save]
            if self.open_it or set(endings) & set(PICTURES):
                require()


def deliver(console: Console, view: View, to: Destinations) -> int:
    """Report the precision, then save, open and print the view; returns the exit code."""
    source = view.source
    console.say(f"computed at {source.precision}; run takes {source.run_precision}")
    for path in to.save:
        view.save(path, "dark" if to.theme == "dark" else "light")
        console.say(f"saved: {path}{_which_table(view, path)}")
    if to.open_it:
        _open(console, view, to.save)
    if to.as_json:
        console.json(json.loads(view.to_json()))
    elif to.as_csv:
        console.write(view.to_csv())
    elif not to.save and not to.open_it:
        from pophood.cli.terminal.display import Display
        from pophood.cli.terminal.view_screen import lay_out

        console.paint(lay_out(view, Display.of(sys.stdout)))
    return 0


def open_page(console: Console, path: Path) -> None:
    """Show a file in a browser, or say where it is."""
    import webbrowser

    if not webbrowser.open(path.absolute().as_uri()):
        console.say(f"no browser could be opened: open {path.absolute()} yourself")


def _open(console: Console, view: View, saved: tuple[Path, ...]) -> None:
    page = next((path for path in saved if path.suffix.lower() in (".html", ".svg", ".png")), None)
    if page is None:
        page = Path(tempfile.mkdtemp(prefix="pophood-")) / f"{view.name}.html"
        view.save(page)
        console.say(f"page: {page}")
    open_page(console, page)


def _which_table(view: View, path: Path) -> str:
    tables = list(view.tables())
    if path.suffix.lower() != ".csv" or len(tables) == 1:
        return ""
    return f" (table {tables[0]} of {', '.join(tables)}; .json has all)"
