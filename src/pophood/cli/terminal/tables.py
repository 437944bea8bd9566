"""Tables, bars and durations as plain text that lines up on every console."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from pophood.cli.terminal.console import plain, visible
from pophood.table import count as count

EIGHTHS = " ▏▎▍▌▋▊▉█"


def table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], stream: TextIO, right: Sequence[int] = ()
) -> str:
    """Return a table, with two spaces between columns; the columns in `right` are aligned right.

    >>> import sys
    >>> print(table(["id", "text"], [[464, "The"], [3139, " capital"]], sys.stdout, right=[0]))
      id  text
     464  The
    3139   capital
    """
    cells = [[plain(visible(str(cell), keep=""), stream) for cell in row] for row in [headings, *rows]]
    widths = [max(width(row[i]) for row in cells) for i in range(len(headings))]
    return "\n".join(
        "  ".join(padded(cell, widths[i], right=i in right) for i, cell in enumerate(row)).rstrip()
        for row in cells
    )


def width(text: str) -> int:
    """Return a text's width in terminal cells: two for a wide character, none for a combining one.

    >>> width("a日e\u0301")
    4
    """
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, room: int, *, right: bool = False) -> str:
    """Return a text with spaces behind it, or with `right` before it, that fill `room` terminal cells."""
    space = " " * (room - width(text))
    return space + text if right else text + space


def shortened(text: str, room: int, end: str = "…") -> str:
    """Cut a text to `room` terminal cells, with `end` in the place of what was cut off."""
    if width(text) <= room:
        return text
    while text and width(text) > room - 1:
        text = text[:-1]
    return text + end


def bar(share: float, cells: int, stream: TextIO) -> str:
    """Return a bar that fills `share` (0 to 1) of `cells` characters; any share above zero is visible."""
    from pophood.system import unicode_ok

    share = min(1.0, max(0.0, share))
    if unicode_ok(stream):
        eighths = max(1, round(share * cells * 8)) if share > 0 else 0
        return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()
    return "#" * (max(1, round(share * cells)) if share > 0 else 0)


def seconds(duration: float) -> str:
    """Return a duration in the format of the talk.

    >>> [seconds(s) for s in (0.1712, 12.34, 75)]
    ['0.17 s', '12.3 s', '1 min 15 s']
    """
    if duration < 60:
        return f"{duration:.2f} s" if duration < 10 else f"{duration:.1f} s"
    return f"{int(duration) // 60} min {int(duration) % 60} s"
