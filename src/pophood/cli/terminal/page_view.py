"""The layout of a course page on a terminal: headings, prose, code and the values of cells.

With colours, rich renders the Markdown; without (a pipe, NO_COLOR), the same text is laid out as plain lines.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import Console, plain, visible
from pophood.system import colour_ok

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

MOST_COLUMNS = 100  # longer lines of prose are hard to read
INDENT = "    "


class Sheet:
    """Writes the parts of a page to stdout."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._columns = max(20, min(shutil.get_terminal_size((80, 24)).columns, MOST_COLUMNS))
        self._rich: RichConsole | None = None
        if colour_ok(sys.stdout):
            from rich.console import Console as RichConsole

            self._rich = RichConsole(file=sys.stdout, width=self._columns, highlight=False)

    def heading(self, text: str, level: int = 2) -> None:
        """Print a heading after an empty line; level 1 begins a page."""
        if self._rich is not None:
            from rich.rule import Rule
            from rich.text import Text

            self._render(Rule(Text(text, "bold"), align="left") if level == 1 else Text(text, "bold cyan"))
            return
        mark = "=" if level == 1 else "-"
        shown = self._plain(text)
        self._console.out(f"\n{shown}\n{mark * min(len(shown), self._columns)}")

    def prose(self, text: str, lead: str = "") -> None:
        """Print Markdown from the page, after the words in `lead`."""
        if self._rich is not None:
            from rich.markdown import Markdown

            self._render(Markdown(f"**{lead.strip()}** {text}" if lead else text))
            return
        self._console.out("\n" + self._plain(layout(lead + text, self._columns)))

    def code(self, text: str, language: str) -> None:
        """Print code, indented."""
        if self._rich is not None:
            from rich.padding import Padding
            from rich.syntax import Syntax

            syntax = Syntax(text, language, background_color="default", word_wrap=True)
            self._render(Padding(syntax, (0, 0, 0, len(INDENT))))
            return
        self._console.out("\n" + textwrap.indent(text, INDENT))

    def line(self, text: str) -> None:
        """Print one of the player's own lines after an empty line."""
        self._console.out("\n" + self._plain(text))

    def verdict(self, text: str, judged: str) -> None:
        """Print the verdict on a guess in words, and in green, yellow or red if there are colours."""
        if self._rich is not None:
            from rich.text import Text

            styles = {"right": "bold green", "close": "bold yellow", "wrong": "bold red"}
            self._render(Text(visible(text), styles.get(judged, "bold")))
            return
        self.line(text)

    def value(self, value: object) -> None:
        """Print the value of a cell's last expression: a view's blocks and notes, or its `str`."""
        from pophood.cli.terminal.display import Display
        from pophood.cli.terminal.view_screen import lay_out
        from pophood.look.view import View

        if isinstance(value, View):
            self._console.paint(lay_out(value, Display.of(sys.stdout)))
        elif value is not None:
            self._console.out(str(value))

    def _plain(self, text: str) -> str:
        return plain(text, sys.stdout)

    def _render(self, what: RenderableType) -> None:
        assert self._rich is not None
        self._console.end_line()
        self._rich.print()
        self._rich.print(what)


def layout(text: str, columns: int) -> str:
    """Return course Markdown as plain text: paragraphs wrapped, lists indented, tables unchanged.

    >>> print(layout("One **two**\\nthree.\\n\\n- a list\\n  item", 12))
    One two
    three.
    <BLANKLINE>
    - a list
      item
    """
    blocks = [_block(block.split("\n"), columns) for block in re.split(r"\n{2,}", text)]
    return "\n\n".join(blocks)


def _block(lines: list[str], columns: int) -> str:
    if lines[0].startswith("|"):
        return "\n".join(lines)
    items: list[str] = []
    for line in lines:
        if not items or line.startswith("- "):
            items.append(line)
        else:
            items[-1] += " " + line.strip()
    return "\n".join(
        textwrap.fill(
            re.sub(r"\*\*([^*]+)\*\*", r"\1", item),
            columns,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
