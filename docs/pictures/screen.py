"""A terminal's screen: text and the control sequences that pophood writes, as rows of styled characters.

Knows colours, carriage return, cursor up, and erasing; any other sequence is refused by name, so that no
recording is silently wrong. No wide characters, no scrolling back.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b(.?)", re.DOTALL)
IGNORED = re.compile(r"\?(?:25|2004)[hl]")  # cursor shown or hidden, pasted text marked
BASIC = [  # the 16 colours that a terminal chooses itself
    "#484f58",
    "#ff7b72",
    "#3fb950",
    "#d29922",
    "#58a6ff",
    "#bc8cff",
    "#39c5cf",
    "#b1bac4",
    "#6e7681",
    "#ffa198",
    "#56d364",
    "#e3b341",
    "#79c0ff",
    "#d2a8ff",
    "#56d4dd",
    "#f0f6fc",
]


@dataclass(frozen=True, slots=True)
class Style:
    """How a character looks; a colour is None (the terminal's own) or "#rrggbb"."""

    colour: str | None = None
    behind: str | None = None
    bold: bool = False
    faint: bool = False
    italic: bool = False
    underlined: bool = False


PLAIN = Style()
SWITCHES: dict[int, dict[str, Any]] = {
    1: {"bold": True},
    2: {"faint": True},
    3: {"italic": True},
    4: {"underlined": True},
    22: {"bold": False, "faint": False},
    23: {"italic": False},
    24: {"underlined": False},
}
Cell = tuple[str, Style]
Row = tuple[Cell, ...]


class Screen:
    """A terminal of `columns` x `rows` characters.

    >>> screen = Screen(4, 2)
    >>> screen.feed("abc\\r\\n\\x1b[1mde")
    >>> screen.lines()
    ['abc', 'de']
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self._rows: list[list[Cell]] = [[] for _ in range(rows)]
        self._at = (0, 0)  # row, column
        self._style = PLAIN

    def feed(self, text: str) -> None:
        """Show what a program wrote; a sequence must not be cut in two."""
        place = 0
        for match in SEQUENCE.finditer(text):
            self._show(text[place : match.start()])
            self._obey(match)
            place = match.end()
        self._show(text[place:])

    def rows(self) -> tuple[Row, ...]:
        """All rows, without the blanks at their ends."""
        return tuple(_trimmed(row) for row in self._rows)

    def lines(self) -> list[str]:
        """Return the screen as plain text."""
        return ["".join(character for character, _ in row) for row in self.rows()]

    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor."""
        return self._at

    def _show(self, text: str) -> None:
        row, column = self._at
        for character in text:
            if character == "\n":
                row += 1
            elif character == "\r":
                column = 0
            elif character == "\b":
                column = max(column - 1, 0)
            elif unicodedata.category(character) in ("Cc", "Cs", "Mn") or (
                unicodedata.east_asian_width(character) in "WF"
            ):
                raise ValueError(f"got the character {character!r}; wanted one that fills one cell")
            else:
                if column == self.columns:
                    row, column = row + 1, 0
                row = self._scrolled(row)
                self._put(row, column, character)
                column += 1
            row = self._scrolled(row)
        self._at = row, column

    def _scrolled(self, row: int) -> int:
        if row < len(self._rows):
            return row
        self._rows = [*self._rows[1:], []]
        return row - 1

    def _put(self, row: int, column: int, character: str) -> None:
        line = self._rows[row]
        line += [(" ", PLAIN)] * (column + 1 - len(line))
        line[column] = (character, self._style)

    def _obey(self, match: re.Match[str]) -> None:
        given, letter = match[1], match[2]
        row, column = self._at
        if letter == "m":
            self._style = _styled(self._style, [int(number or 0) for number in given.split(";")])
        elif letter == "A":
            self._at = max(row - int(given or 1), 0), column
        elif letter == "K" and given in ("", "0", "2"):
            self._rows[row] = [] if given == "2" else self._rows[row][:column]
        elif not (letter and IGNORED.fullmatch(given + letter)):
            raise ValueError(f"got the control sequence {match[0]!r}, which this screen does not know")


def _styled(style: Style, numbers: list[int]) -> Style:
    rest = list(numbers)
    while rest:
        number = rest.pop(0)
        if number == 0:
            style = PLAIN
        elif number in SWITCHES:
            style = replace(style, **SWITCHES[number])
        elif number in (38, 48):
            colour = _extended(rest)
            style = replace(style, colour=colour) if number == 38 else replace(style, behind=colour)
        elif 30 <= number <= 37 or 90 <= number <= 97:
            style = replace(style, colour=BASIC[number - 30 if number < 90 else number - 82])
        elif number == 39:
            style = replace(style, colour=None)
        elif number == 49:
            style = replace(style, behind=None)
        else:
            raise ValueError(f"got the style {number}, which this screen does not know")
    return style


def _extended(rest: list[int]) -> str:
    """The colour that `5;n` or `2;r;g;b` names; takes it off the front of `rest`."""
    kind = rest.pop(0)
    if kind == 2:
        red, green, blue = rest[:3]
        del rest[:3]
        return f"#{red:02x}{green:02x}{blue:02x}"
    number = rest.pop(0)
    if number < 16:
        return BASIC[number]
    if number < 232:
        steps = (0, 95, 135, 175, 215, 255)
        red, green, blue = (steps[(number - 16) // step % 6] for step in (36, 6, 1))
        return f"#{red:02x}{green:02x}{blue:02x}"
    grey = 8 + 10 * (number - 232)
    return f"#{grey:02x}{grey:02x}{grey:02x}"


def _trimmed(row: list[Cell]) -> Row:
    end = len(row)
    while end and row[end - 1][0] == " " and row[end - 1][1].behind is None:
        end -= 1
    return tuple(row[:end])
