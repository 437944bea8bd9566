"""Coloured texts and scatter plots on a terminal; without colours, a text shows its values in brackets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import plain, visible
from pophood.cli.terminal.display import Display, legend
from pophood.cli.terminal.tables import width
from pophood.phrases import phrase

if TYPE_CHECKING:
    from pophood.look.blocks import Coloured, Points

MARKS = "ox+*#@%&"
LEGEND_STEPS = 12
Grid = list[list[str]]


def coloured(block: Coloured, display: Display) -> str:
    """Return the text with a coloured background for every piece, line breaks kept, and a legend."""
    if display.colours == "none":
        shown = "".join(f"{_piece(text, display)}[{_value(value)}]" for text, value in block.pieces)
        span = phrase("from {low:g} to {high:g}, in brackets", low=block.low, high=block.high)
        return f"{shown}\n{legend(block.scale, span, len(span), display)}"
    out: list[str] = []
    column = 0
    for text, value in block.pieces:
        for part in filter(None, re.split(r"(\n)", _piece(text, display))):
            if part == "\n":
                out.append("\n")
                column = 0
                continue
            if column and column + width(part) > display.columns:
                out.append("\n")
                column = 0
            column += width(part)
            out.append(display.cell(part, _colour(block, value)) if value == value else part)
    steps = [block.low + (block.high - block.low) * (i + 0.5) / LEGEND_STEPS for i in range(LEGEND_STEPS)]
    ramp = "".join(display.cell(" ", _colour(block, value)) for value in steps)
    ends = f"{block.low:g} {ramp} {block.high:g}"
    cells = len(f"{block.low:g}  {block.high:g}") + LEGEND_STEPS
    return f"{''.join(out)}\n{legend(block.scale, ends, cells, display)}"


def points(block: Points, display: Display) -> str:
    """Return a scatter plot of characters; a label without room becomes a number, explained below."""
    from pophood.look.figures.theme import DARK, rgb

    wide, high = display.columns - 2, 22
    groups = list(dict.fromkeys(group for *_, group in block.points))
    marks = {group: MARKS[i % len(MARKS)] for i, group in enumerate(groups)}
    colours = {group: rgb(DARK.accents[i % len(DARK.accents)]) for i, group in enumerate(groups)}
    places = _places(block, wide, high)
    grid: Grid = [[" "] * wide for _ in range(high)]
    for (row, column), (*_, group) in zip(places, block.points, strict=True):
        grid[row][column] = display.ink(marks[group], colours[group])
    crowded = []
    for (row, column), (_, _, label, _) in zip(places, block.points, strict=True):
        text = display.safe(label)
        if text and not _write(grid, row, column, text):
            crowded.append((row, column, text))
    footnotes = []
    for number, (row, column, text) in enumerate(crowded, 1):
        _write(grid, row, column, str(number))
        footnotes.append(f"{number} {text}")
    side, dash, corner = ("│", "─", "┌┐└┘") if display.unicode else ("|", "-", "++++")
    lines = [
        corner[0] + dash * wide + corner[1],
        *(f"{side}{''.join(row)}{side}" for row in grid),
        corner[2] + dash * wide + corner[3],
    ]
    if block.x_label or block.y_label:
        x, y = display.safe(block.x_label), display.safe(block.y_label)
        lines.append(phrase("across: {x}; up: {y}", x=x, y=y))
    if len(groups) > 1:
        names = (f"{display.ink(marks[group], colours[group])} {display.safe(group)}" for group in groups)
        lines.append("   ".join(names))
    return "\n".join([*lines, *([", ".join(footnotes)] if footnotes else [])])


def _places(block: Points, wide: int, high: int) -> list[tuple[int, int]]:
    """Return the (row, column) of every point; a margin on both sides leaves room for labels."""
    xs, ys = [x for x, *_ in block.points], [y for _, y, *_ in block.points]
    left, bottom = min(xs, default=0.0), min(ys, default=0.0)
    across = (max(xs, default=0.0) - left) or 1.0
    up = (max(ys, default=0.0) - bottom) or 1.0
    margin = min(12, wide // 5)
    return [
        (
            high - 2 - round((y - bottom) / up * (high - 3)),
            margin // 2 + round((x - left) / across * (wide - 1 - 2 * margin)),
        )
        for x, y, *_ in block.points
    ]


def _write(grid: Grid, row: int, column: int, text: str) -> bool:
    """Write a label beside its point if there are enough free cells; return True if there were."""
    cells = _cells(text)
    length = len(cells)
    for down, start in (
        (0, column + 2),
        (0, column - 1 - length),
        (-1, column - length // 2),
        (1, column - length // 2),
        (-1, column + 1),
        (1, column + 1),
        (-1, column - length),
        (1, column - length),
    ):
        line = row + down
        if not 0 <= line < len(grid) or start < 0 or start + length > len(grid[line]):
            continue
        around = grid[line][max(start - 1, 0) : start + length + 1]
        if down == 0:
            around = grid[line][start : start + length]
        if all(cell == " " for cell in around):
            grid[line][start : start + length] = cells
            return True
    return False


def _cells(text: str) -> list[str]:
    """Split `text` into terminal cells: a wide character takes two, and the second is empty."""
    out: list[str] = []
    for character in text:
        if width(character) == 0 and out:
            out[-1] += character
        else:
            out += [character, *[""] * (width(character) - 1)]
    return out


def _piece(text: str, display: Display) -> str:
    mark = "⏎\n" if display.unicode else "\\n\n"
    return plain(visible(text.replace("\t", "\\t"), keep="\n"), display.stream).replace("\n", mark)


def _value(value: float) -> str:
    return f"{value:.2f}" if value == value else "-"


def _colour(block: Coloured, value: float) -> tuple[int, int, int]:
    from pophood.look.figures.theme import DARK, colour_at

    span = block.high - block.low
    return colour_at(DARK.sequential, (value - block.low) / span if span > 0 else 0.0)
