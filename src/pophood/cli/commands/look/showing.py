"""Where a finished view goes: the terminal, stdout as data, files, a browser."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pophood.cli.commands.look.asking import Outputs
from pophood.cli.terminal.console import Console

if TYPE_CHECKING:
    from pophood.look.view import View


def deliver(console: Console, view: View, outputs: Outputs) -> int:
    """Say how the numbers were computed, then print, save and open as was asked; returns the exit code."""
    source = view.source
    console.say(f"computed at {source.precision}; run takes {source.run_precision}")
    for path in outputs.save:
        view.save(path, "dark" if outputs.theme == "dark" else "light")
        console.say(f"saved: {path}{_which_table(view, path)}")
    if outputs.open_it:
        _open(console, view, outputs.save)
    if outputs.as_json:
        console.json(json.loads(view.to_json()))
    elif outputs.as_csv:
        console.write(view.to_csv())
    elif not outputs.save and not outputs.open_it:
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
    shown = next((path for path in saved if path.suffix.lower() in (".html", ".svg", ".png")), None)
    if shown is None:
        shown = Path(tempfile.mkdtemp(prefix="pophood-")) / f"{view.name}.html"
        view.save(shown)
        console.say(f"page: {shown}")
    open_page(console, shown)


def _which_table(view: View, path: Path) -> str:
    tables = list(view.tables())
    if path.suffix.lower() != ".csv" or len(tables) == 1:
        return ""
    return f" (table {tables[0]} of {', '.join(tables)}; .json has all)"
