"""Coloured texts and points on a terminal; without colours, a text carries its values in brackets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import plain, visible
from pophood.cli.terminal.tables import width
from pophood.cli.terminal.view_screen import Screen, key

if TYPE_CHECKING:
    from pophood.look.blocks import Coloured, Points

MARKS = "ox+*#@%&"
LEGEND_STEPS = 12
Grid = list[list[str]]


def coloured(block: Coloured, screen: Screen) -> str:
    """The text with every piece on its colour, line breaks kept, and the key to the colours."""
    if screen.colours == "none":
        shown = "".join(f"{_piece(text, screen)}[{_value(value)}]" for text, value in block.pieces)
        span = f"from {block.low:g} to {block.high:g}, in brackets"
        return f"{shown}\n{key(block.scale, span, len(span), screen)}"
    out: list[str] = []
    column = 0
    for text, value in block.pieces:
        for part in _lines(_piece(text, screen)):
            if part == "\n":
                out.append("\n")
                column = 0
                continue
            if column and column + width(part) > screen.columns:
                out.append("\n")
                column = 0
            column += width(part)
            out.append(screen.cell(part, _colour(block, value)) if value == value else part)
    steps = [block.low + (block.high - block.low) * (i + 0.5) / LEGEND_STEPS for i in range(LEGEND_STEPS)]
    ramp = "".join(screen.cell(" ", _colour(block, value)) for value in steps)
    ends = f"{block.low:g} {ramp} {block.high:g}"
    cells = len(f"{block.low:g}  {block.high:g}") + LEGEND_STEPS
    return f"{''.join(out)}\n{key(block.scale, ends, cells, screen)}"


def points(block: Points, screen: Screen) -> str:
    """Points on a grid of characters; a label that finds no room becomes a number, explained below."""
    from pophood.look.figures.theme import DARK, rgb

    wide, high = screen.columns - 2, 22
    groups = list(dict.fromkeys(group for *_, group in block.points))
    marks = {group: MARKS[i % len(MARKS)] for i, group in enumerate(groups)}
    colours = {group: rgb(DARK.accents[i % len(DARK.accents)]) for i, group in enumerate(groups)}
    places = _places(block, wide, high)
    grid: Grid = [[" "] * wide for _ in range(high)]
    for (row, column), (*_, group) in zip(places, block.points, strict=True):
        grid[row][column] = screen.ink(marks[group], colours[group])
    left_over = []
    for (row, column), (_, _, label, _) in zip(places, block.points, strict=True):
        text = screen.safe(label)
        if text and not _write(grid, row, column, text):
            left_over.append((row, column, text))
    said = []
    for number, (row, column, text) in enumerate(left_over, 1):
        _write(grid, row, column, str(number))
        said.append(f"{number} {text}")
    side, dash, corner = ("│", "─", "┌┐└┘") if screen.unicode else ("|", "-", "++++")
    lines = [
        corner[0] + dash * wide + corner[1],
        *(f"{side}{''.join(row)}{side}" for row in grid),
        corner[2] + dash * wide + corner[3],
    ]
    if block.x_label or block.y_label:
        lines.append(f"across: {screen.safe(block.x_label)}; up: {screen.safe(block.y_label)}")
    if len(groups) > 1:
        key = (f"{screen.ink(marks[group], colours[group])} {screen.safe(group)}" for group in groups)
        lines.append("   ".join(key))
    return "\n".join([*lines, *([", ".join(said)] if said else [])])


def _places(block: Points, wide: int, high: int) -> list[tuple[int, int]]:
    """The cell of every point, with a margin for labels."""
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
    """Write a label right of, left of, above or below its point, where all cells are free."""
    length = width(text)
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
            grid[line][start : start + length] = _cells(text)
            return True
    return False


def _cells(text: str) -> list[str]:
    """One entry per cell of the console: a wide character takes two, the second empty."""
    out: list[str] = []
    for character in text:
        if width(character) == 0 and out:
            out[-1] += character
        else:
            out += [character, *[""] * (width(character) - 1)]
    return out


def _piece(text: str, screen: Screen) -> str:
    mark = "⏎\n" if screen.unicode else "\\n\n"
    return plain(visible(text.replace("\t", "\\t"), keep="\n"), screen.stream).replace("\n", mark)


def _lines(text: str) -> Iterator[str]:
    """The parts of a text between its line breaks, and the line breaks."""
    for number, part in enumerate(text.split("\n")):
        if number:
            yield "\n"
        if part:
            yield part


def _value(value: float) -> str:
    return f"{value:.2f}" if value == value else "-"


def _colour(block: Coloured, value: float) -> tuple[int, int, int]:
    from pophood.look.figures.theme import DARK, colour_at

    span = block.high - block.low
    return colour_at(DARK.sequential, (value - block.low) / span if span > 0 else 0.0)
