"""Heat maps on a terminal: coloured cells, with numbers if they fit, or shading characters.

A map that does not fit shows the largest value of each group of neighbouring cells, and says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pophood.cli.terminal.display import Display, legend
from pophood.cli.terminal.tables import padded, shortened, width
from pophood.phrases import phrase

if TYPE_CHECKING:
    from pophood.look.blocks import Heat

LABEL = 16  # maximum width of the row labels
MOST_ROWS = 64
SHADES = {True: "·░▒▓█", False: ".:+*#"}
SIGNS = "=-.+#"  # far below zero, below, near zero, above, far above


def heat(block: Heat, display: Display) -> str:
    """Return the map with its row and column labels and a legend."""
    end = "…" if display.unicode else "~"
    labels = [shortened(display.safe(row), LABEL, end) for row in block.rows] or [""] * len(block.values)
    margin = max(map(width, labels), default=0) + 1
    room = display.columns - margin
    values, columns = np.asarray(block.values, np.float64), [display.safe(name) for name in block.columns]
    decimals = 2 if max(abs(block.low), abs(block.high)) < 10 else 0 if block.high >= 1000 else 1
    number = (
        max((len(_number(value, decimals)) for value in values.flat if np.isfinite(value)), default=1) + 1
    )
    if values.shape[1] * number <= room:
        return _with_numbers(block, display, labels, margin, number, decimals)
    down, across = -(-len(values) // MOST_ROWS), -(-values.shape[1] // room)
    cell = 2 if values.shape[1] * 2 <= room and display.colours != "none" else 1
    pooled = _pooled(values, down, across, block.diverging)
    lines = [_axis(pooled.shape[1], cell, across, margin)] if columns else []
    for at, row in enumerate(pooled):
        cells = "".join(_cell(value, cell, block, display) for value in row)
        lines.append(f"{padded(labels[at * down], margin - 1, right=True)} {cells.rstrip(' ')}")
    lines.append(_legend(block, display, decimals))
    if down > 1 or across > 1:
        lines.append(phrase("each cell: the largest of {down} x {across} values", down=down, across=across))
    return "\n".join(lines)


def _with_numbers(
    block: Heat, display: Display, labels: list[str], margin: int, number: int, decimals: int
) -> str:
    """Return a map that is small enough to print every value."""
    names = [display.safe(name) for name in block.columns]
    room = (display.columns - margin) // max(len(names), 1)
    number = min(max([number, *(width(name) + 1 for name in names)]), room)
    end = "…" if display.unicode else "~"
    head = "".join(padded(shortened(name, number - 1, end), number, right=True) for name in names)
    lines = [" " * margin + head] if names else []
    for label, row in zip(labels, block.values, strict=True):
        cells = []
        for value in row:
            text = padded(_number(value, decimals) if np.isfinite(value) else "", number, right=True)
            cells.append(display.cell(text, _colour(value, block)) if np.isfinite(value) else text)
        lines.append(f"{padded(label, margin - 1, right=True)} {''.join(cells).rstrip(' ')}")
    return "\n".join([*lines, _legend(block, display, decimals)])


def _cell(value: float, cells: int, block: Heat, display: Display) -> str:
    if not np.isfinite(value):
        return " " * cells
    if display.colours != "none":
        return display.cell(" " * cells, _colour(value, block))
    ramp = SIGNS if block.diverging else SHADES[display.unicode]
    return ramp[min(int(_share(value, block) * len(ramp)), len(ramp) - 1)] * cells


def _legend(block: Heat, display: Display, decimals: int) -> str:
    """Return the legend of a map: its scale in words, and a ramp from the lowest to the highest value."""
    low, high = _number(block.low, decimals), _number(block.high, decimals)
    steps = 12 if display.colours != "none" else 5
    spread = [block.low + (block.high - block.low) * (i + 0.5) / steps for i in range(steps)]
    ramp = "".join(_cell(value, 1, block, display) for value in spread)
    blank = f"; {phrase('blank: masked')}" if not np.isfinite(block.values).all() else ""
    cells = len(f"{low}  {high}{blank}") + steps
    return legend(block.scale, f"{low} {ramp} {high}{blank}", cells, display)


def _axis(count: int, cell: int, across: int, margin: int) -> str:
    """Return a line of column numbers, thinned out so that they do not touch."""
    line = [" "] * (count * cell + 8)
    free = 0
    for at in range(0, count, max(1, 5 if across == 1 else 10)):
        text = str(at * across)
        if at * cell >= free:
            line[at * cell : at * cell + len(text)] = text
            free = at * cell + len(text) + 1
    return (" " * margin + "".join(line)).rstrip()


def _pooled(values: NDArray[np.float64], down: int, across: int, diverging: bool) -> NDArray[np.float64]:
    """Reduce every `down` x `across` cells to their maximum (diverging: the value furthest from zero).

    Groups that hold only NaN stay NaN.
    """
    if down == across == 1:
        return values
    high, wide = (-(-size // step) for size, step in zip(values.shape, (down, across), strict=True))
    padded = np.full((high * down, wide * across), np.nan)
    padded[: values.shape[0], : values.shape[1]] = np.where(np.isfinite(values), values, np.nan)
    groups = padded.reshape(high, down, wide, across).transpose(0, 2, 1, 3).reshape(high, wide, -1)
    ranked = np.where(np.isnan(groups), -np.inf, np.abs(groups) if diverging else groups)
    best = np.take_along_axis(groups, ranked.argmax(-1)[..., None], -1)
    pooled: NDArray[np.float64] = best[..., 0]
    return pooled


def _colour(value: float, block: Heat) -> tuple[int, int, int]:
    from pophood.look.figures.theme import DARK, colour_at

    return colour_at(DARK.diverging if block.diverging else DARK.sequential, _share(value, block))


def _share(value: float, block: Heat) -> float:
    span = block.high - block.low
    return min(max((float(value) - block.low) / span, 0.0), 1.0) if span > 0 else 0.0


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
