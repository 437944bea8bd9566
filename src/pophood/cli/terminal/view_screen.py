"""The layout of a view on a terminal or in a pipe: title, blocks and notes, one below the other.

Without colours, Unicode or enough columns, the same content is shown with numbers, ASCII or fewer cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import visible
from pophood.cli.terminal.display import Display, wrapped
from pophood.cli.terminal.heat import heat
from pophood.cli.terminal.render import coloured, points
from pophood.cli.terminal.tables import bar, padded, shortened, table, width

if TYPE_CHECKING:
    from pophood.look.blocks import Block, Lines, Prose
    from pophood.look.view import View
    from pophood.table import Table

BAR, SHORTEST_BAR = 24, 8
SHORTEST_TEXT = 12
GAP = 2  # between the columns of a table


def lay_out(view: View, display: Display) -> str:
    """Return the whole view as text for this terminal."""
    blocks = view.picture()
    sections = [
        "\n".join(display.bold(line) for line in wrapped(view.title, display)),
        *(_block(block, display, view.title) for block in blocks),
        *("\n".join(wrapped(note, display)) for note in view.notes),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _block(block: Block, display: Display, title: str) -> str:
    from pophood.look.blocks import Coloured, Heat, Lines, Points, Prose

    draw: dict[type, Callable[..., str]] = {
        Heat: heat,
        Coloured: coloured,
        Points: points,
        Lines: _lines,
        Prose: _prose,
    }
    body = draw.get(type(block), rows)(block, display)
    heading = "" if block.title in ("", title) else display.bold(display.safe(block.title)) + "\n"
    return heading + body


def _lines(block: Lines, display: Display) -> str:
    text = block.text if display.unicode else block.ascii
    return "\n".join(visible(line, keep="") for line in text.splitlines())


def _prose(block: Prose, display: Display) -> str:
    return "\n".join(line for sentence in block.sentences for line in wrapped(sentence, display))


def rows(block: Table, display: Display) -> str:
    """Return a table that fits the terminal: first the bars are left out, then the longest texts are cut."""
    headings = [display.safe(name) for name in block.headings]
    cells = [[display.safe(cell) for cell in block.cells(row)] for row in range(len(block))]
    right = [i for i in range(len(headings)) if block.numeric(i)]
    widths = [max(width(row[i]) for row in [headings, *cells]) for i in range(len(headings))]
    length = min(BAR, display.columns - _total(widths) - GAP) if block.bars else 0
    narrow = _narrowed(widths, set(right), display.columns)
    if narrow is None:
        fixed = [i for i, name in enumerate(block.columns) if i == 0 or name.endswith("token_text")]
        return _stacked(headings, cells, widths, right, fixed, display)
    cells = [[shortened(cell, room) for cell, room in zip(row, narrow, strict=True)] for row in cells]
    headings = [shortened(heading, room) for heading, room in zip(headings, narrow, strict=True)]
    lines = table(headings, cells, display.stream, right=right).splitlines()
    if length < SHORTEST_BAR:
        return "\n".join(lines)
    return with_bars(lines, [block.share(row) for row in range(len(block))], length, display)


def with_bars(lines: Sequence[str], shares: Sequence[float], cells: int, display: Display) -> str:
    """Return a table whose rows end in bars, which fill their shares (0 to 1) of `cells` columns.

    `lines` are the heading and the rows. The bars are coloured if the terminal has colours.
    """
    from pophood.look.figures.theme import DARK, rgb

    widest = max(map(width, lines))
    drawn = ["", *(bar(share, cells, display.stream) for share in shares)]
    inked = [display.ink(one, rgb(DARK.accents[0])) if one else "" for one in drawn]
    return "\n".join(
        f"{padded(line, widest)}  {one}".rstrip() for line, one in zip(lines, inked, strict=True)
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _narrowed(widths: Sequence[int], numbers: set[int], room: int) -> list[int] | None:
    """Return column widths whose total fits `room`, the longest texts cut first; None if they cannot fit."""
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
    fixed: Sequence[int],
    display: Display,
) -> str:
    """Return a table that is too wide as several tables below each other.

    Each table repeats the columns in `fixed`: the first one and the token texts, which identify a row.
    """
    groups: list[list[int]] = [list(fixed)]
    for at in range(1, len(widths)):
        if at in fixed:
            continue
        if sum(widths[i] + GAP for i in [*groups[-1], at]) - GAP > display.columns and groups[-1] != fixed:
            groups.append(list(fixed))
        groups[-1].append(at)
    return "\n\n".join(
        table(
            [headings[i] for i in group],
            [[row[i] for i in group] for row in cells],
            display.stream,
            right=[place for place, i in enumerate(group) if i in right],
        )
        for group in groups
    )
