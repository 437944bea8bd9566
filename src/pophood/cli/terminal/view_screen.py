"""A view on a terminal: its title, its blocks one below the other, its notes; plain text in a pipe.

What a console cannot do is done otherwise: no colours, shades or numbers; no Unicode, ASCII; narrow, fewer
cells. Texts of a model never reach it with control characters.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

from pophood.cli.terminal.console import plain, visible
from pophood.cli.terminal.tables import bar, table, width
from pophood.system import colour_ok, unicode_ok

if TYPE_CHECKING:
    from pophood.look.blocks import Block
    from pophood.look.figures.theme import Colour
    from pophood.look.view import View
    from pophood.table import Table

NARROWEST, PIPE = 40, 100  # columns
BAR, SHORTEST_BAR = 24, 8
SHORTEST_TEXT = 12
GAP = 2  # between the columns of a table


@dataclass(frozen=True, slots=True)
class Screen:
    """What a console can show: its columns, its colours, its characters."""

    columns: int
    colours: Literal["none", "256", "full"]
    unicode: bool
    stream: TextIO

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """What this stream can show; a pipe is wide and has no colours."""
        columns = shutil.get_terminal_size((PIPE, 24)).columns if _sized(stream) else PIPE
        return cls(max(columns, NARROWEST), _depth(stream), unicode_ok(stream), stream)

    def cell(self, text: str, background: Colour) -> str:
        """A text on a colour, black or white on it, whichever can be read."""
        from pophood.look.figures.theme import readable_on, rgb

        if self.colours == "none":
            return text
        front = rgb(readable_on(background))
        return f"\x1b[{_code(48, background, self.colours)};{_code(38, front, self.colours)}m{text}\x1b[0m"

    def ink(self, text: str, colour: Colour) -> str:
        """A text in a colour."""
        return text if self.colours == "none" else f"\x1b[{_code(38, colour, self.colours)}m{text}\x1b[0m"

    def bold(self, text: str) -> str:
        """A text in bold."""
        return text if self.colours == "none" else f"\x1b[1m{text}\x1b[0m"

    def safe(self, text: str) -> str:
        """A text on one line that this console can show."""
        return plain(visible(text.replace("\n", "\\n").replace("\t", "\\t"), keep=""), self.stream)


def key(scale: str, ramp: str, cells: int, screen: Screen) -> str:
    """What colours mean, and a ramp of them that takes `cells` columns: on one line, or on two."""
    words = f"{screen.safe(scale)}:"
    if width(words) + 1 + cells <= screen.columns:
        return f"{words} {ramp}"
    return "\n".join([*_wrapped(words, screen), ramp])


def lay_out(view: View, screen: Screen) -> str:
    """The whole view as text for this console."""
    blocks = view.picture()
    parts = [screen.bold(line) for line in _wrapped(view.title, screen)]
    sections = [
        "\n".join(parts),
        *(_block(block, screen, view.title) for block in blocks),
        *("\n".join(_wrapped(note, screen)) for note in view.notes),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _block(block: Block, screen: Screen, said: str) -> str:
    from pophood.cli.terminal.heat import heat
    from pophood.cli.terminal.render import coloured, points
    from pophood.look.blocks import Coloured, Heat, Lines, Points

    if isinstance(block, Heat):
        body = heat(block, screen)
    elif isinstance(block, Coloured):
        body = coloured(block, screen)
    elif isinstance(block, Points):
        body = points(block, screen)
    elif isinstance(block, Lines):
        body = "\n".join(
            visible(line, keep="") for line in (block.text if screen.unicode else block.ascii).splitlines()
        )
    else:
        body = rows(block, screen)
    heading = "" if block.title in ("", said) else screen.bold(screen.safe(block.title)) + "\n"
    return heading + body


def rows(block: Table, screen: Screen) -> str:
    """A table with its bars, cut to the console's width: first the bars give way, then the longest texts."""
    headings = [screen.safe(name) for name in block.columns]
    cells = [[screen.safe(cell) for cell in block.cells(row)] for row in range(len(block))]
    right = [i for i in range(len(headings)) if block.numeric(i)]
    widths = [max(width(row[i]) for row in [headings, *cells]) for i in range(len(headings))]
    length = min(BAR, screen.columns - _total(widths) - GAP) if block.bars else 0
    narrow = _narrowed(widths, set(right), screen.columns)
    if narrow is None:
        return _stacked(headings, cells, widths, right, screen)
    cells = [[_cut(cell, room) for cell, room in zip(row, narrow, strict=True)] for row in cells]
    headings = [_cut(heading, room) for heading, room in zip(headings, narrow, strict=True)]
    lines = table(headings, cells, screen.stream, right=right).splitlines()
    if length < SHORTEST_BAR:
        return "\n".join(lines)
    most = max(map(width, lines), default=0)
    drawn = [coloured_bar(block.share(row), length, screen) for row in range(len(block))]
    padded = [line + " " * (most - width(line)) for line in lines]
    return "\n".join(
        [lines[0], *(f"{line}  {one}".rstrip() for line, one in zip(padded[1:], drawn, strict=True))]
    )


def coloured_bar(share: float, cells: int, screen: Screen) -> str:
    """A bar in the colour of bars, where the console has colours."""
    from pophood.look.figures.theme import DARK, rgb

    drawn = bar(share, cells, screen.stream)
    return screen.ink(drawn, rgb(DARK.accents[0])) if drawn else drawn


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(widths: Sequence[int], numbers: set[int], room: int) -> list[int] | None:
    """The widths with which a table fits, the longest texts cut first; None if no cut is enough."""
    narrow = list(widths)
    while _total(narrow) > room:
        texts = [i for i in range(len(narrow)) if i not in numbers and narrow[i] > SHORTEST_TEXT]
        if not texts:
            return None
        narrow[max(texts, key=lambda i: narrow[i])] -= 1
    return narrow


def _stacked(
    headings: Sequence[str],
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    right: Sequence[int],
    screen: Screen,
) -> str:
    """A table whose columns do not fit side by side: pieces below each other.

    The first column and the one of the tokens' texts stand in each piece: they say what a row is about.
    """
    told = [i for i in range(len(widths)) if i == 0 or headings[i].endswith("token_text")]
    groups: list[list[int]] = [list(told)]
    for at in range(1, len(widths)):
        if at in told:
            continue
        if sum(widths[i] + GAP for i in [*groups[-1], at]) - GAP > screen.columns and groups[-1] != told:
            groups.append(list(told))
        groups[-1].append(at)
    return "\n\n".join(
        table(
            [headings[i] for i in group],
            [[row[i] for i in group] for row in cells],
            screen.stream,
            right=[place for place, i in enumerate(group) if i in right],
        )
        for group in groups
    )


def _cut(text: str, room: int) -> str:
    if width(text) <= room:
        return text
    while text and width(text) > room - 1:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, screen: Screen) -> list[str]:
    return textwrap.wrap(screen.safe(text), screen.columns, break_long_words=False) or [""]


def _sized(stream: TextIO) -> bool:
    return stream.isatty() or "COLUMNS" in os.environ


def _depth(stream: TextIO) -> Literal["none", "256", "full"]:
    if not colour_ok(stream):
        return "none"
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit") or "WT_SESSION" in os.environ:
        return "full"
    return "256" if "256" in os.environ.get("TERM", "") else "none"


def _code(layer: int, colour: Colour, depth: str) -> str:
    """The SGR parameters of a colour: all of it, or the nearest of the 6 x 6 x 6 that 256 colours hold."""
    if depth == "full":
        return f"{layer};2;{colour[0]};{colour[1]};{colour[2]}"
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (min(range(6), key=lambda i: abs(steps[i] - channel)) for channel in colour)
    return f"{layer};5;{16 + 36 * red + 6 * green + blue}"
