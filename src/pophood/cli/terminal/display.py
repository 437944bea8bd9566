"""A terminal's capabilities (width, colours, characters), and text formatted for them.

A pipe counts as a wide terminal without colours. Control characters in a model's text never reach a
terminal.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from pophood.cli.terminal.console import plain, visible
from pophood.cli.terminal.tables import width
from pophood.system import colour_ok, unicode_ok

if TYPE_CHECKING:
    from pophood.look.figures.theme import Colour

NARROWEST, PIPE = 40, 100  # columns


@dataclass(frozen=True, slots=True)
class Display:
    """The width, colours and characters that a terminal can show."""

    columns: int
    colours: Literal["none", "256", "full"]
    unicode: bool
    stream: TextIO

    @classmethod
    def of(cls, stream: TextIO) -> Display:
        """Return the capabilities of `stream`; a pipe is `PIPE` columns wide and has no colours."""
        sized = stream.isatty() or "COLUMNS" in os.environ
        columns = shutil.get_terminal_size((PIPE, 24)).columns if sized else PIPE
        return cls(max(columns, NARROWEST), _depth(stream), unicode_ok(stream), stream)

    def cell(self, text: str, background: Colour) -> str:
        """Return `text` on a coloured background, in black or white, whichever is more readable."""
        from pophood.look.figures.theme import readable_on, rgb

        if self.colours == "none":
            return text
        front = rgb(readable_on(background))
        return f"\x1b[{_code(48, background, self.colours)};{_code(38, front, self.colours)}m{text}\x1b[0m"

    def ink(self, text: str, colour: Colour) -> str:
        """Return `text` in this colour."""
        return text if self.colours == "none" else f"\x1b[{_code(38, colour, self.colours)}m{text}\x1b[0m"

    def bold(self, text: str) -> str:
        """Return `text` in bold."""
        return text if self.colours == "none" else f"\x1b[1m{text}\x1b[0m"

    def safe(self, text: str) -> str:
        """Return `text` as one line of characters that this terminal can show."""
        return plain(visible(text.replace("\n", "\\n").replace("\t", "\\t"), keep=""), self.stream)


def legend(scale: str, ramp: str, cells: int, display: Display) -> str:
    """Return a colour scale's description and its ramp, `cells` columns wide, on one line if both fit."""
    words = f"{display.safe(scale)}:"
    if width(words) + 1 + cells <= display.columns:
        return f"{words} {ramp}"
    return "\n".join([*wrapped(words, display), ramp])


def wrapped(text: str, display: Display) -> list[str]:
    """Break `text` into lines of the terminal's width."""
    return textwrap.wrap(display.safe(text), display.columns, break_long_words=False) or [""]


def _depth(stream: TextIO) -> Literal["none", "256", "full"]:
    if not colour_ok(stream):
        return "none"
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or "WT_SESSION" in os.environ:
        return "full"
    return "256" if "256" in os.environ.get("TERM", "") else "none"


def _code(layer: int, colour: Colour, depth: str) -> str:
    """Return the SGR parameters of a colour: 24 bits, or the nearest in xterm's 6 x 6 x 6 colour cube."""
    if depth == "full":
        return f"{layer};2;{colour[0]};{colour[1]};{colour[2]}"
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (min(range(6), key=lambda i: abs(steps[i] - channel)) for channel in colour)
    return f"{layer};5;{16 + 36 * red + 6 * green + blue}"
