"""Views on different terminals: narrow, without colours, without Unicode, with 256 and with all colours."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.cli.terminal.display import Display
from pophood.cli.terminal.heat import heat
from pophood.cli.terminal.render import coloured, points
from pophood.cli.terminal.tables import width
from pophood.cli.terminal.view_screen import lay_out, rows
from pophood.look.blocks import Block, Coloured, Heat, Lines, Points
from pophood.look.source import ViewSource
from pophood.look.view import View
from pophood.table import Table

SGR = re.compile(r"\x1b\[([0-9;]*)m")
Depth = Literal["none", "256", "full"]


class Stream(io.StringIO):
    """A stream that claims to be a terminal with this encoding."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = True) -> None:
        super().__init__()
        self._encoding = encoding
        self._terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


def display(columns: int = 80, colours: Depth = "none", encoding: str = "utf-8") -> Display:
    return Display(columns, colours, encoding == "utf-8", Stream(encoding))


def triangle(size: int, low: float = 0.0) -> Heat:
    values = np.linspace(low, 1, size * size, dtype=np.float32).reshape(size, size)
    values[np.triu_indices(size, 1)] = np.nan
    names = tuple(f" token{i}" for i in range(size))
    return Heat("map", values, names, names, low, 1.0, "weight", diverging=low < 0)


@dataclass(frozen=True)
class Everything(View):
    """A view with one block of each kind, and control and wide characters in its texts."""

    name: ClassVar[str] = "everything"

    @property
    def title(self) -> str:
        return "A title that is longer than sixty columns, so that it has to be broken somewhere"

    @property
    def notes(self) -> tuple[str, ...]:
        return ("A note with an \x1b[31mescape.",)

    def picture(self) -> tuple[Block, ...]:
        evil = "a\x1b[2Jb"
        return (
            triangle(5),
            triangle(200, -1.0),
            Coloured(
                "text",
                ((evil, 0.5), ("日本", 1.0), ("\n", 0.0), ("end", float("nan"))),
                0.0,
                1.0,
                "many bits " * 7,
            ),
            Points(
                "points", tuple((float(i % 5), float(i // 5), f"w{i}{evil}", "ab"[i % 2]) for i in range(20))
            ),
            Lines("lines", "│ x │", "| x |"),
            Table(
                ("token_text", "value", "words"), ((evil, 0.5, "long " * 40),), bars="value", title="table"
            ),
        )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("colours", ["none", "256", "full"])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_every_block_fits_every_console(columns: int, colours: Depth, encoding: str) -> None:
    text = lay_out(Everything(ViewSource("m", "f32", "f32")), display(columns, colours, encoding))
    bare = SGR.sub("", text)
    assert "\x1b" not in bare, "no text of a model reaches the console's controls"
    bare.encode(encoding, "backslashreplace")
    if encoding == "ascii":
        assert not re.search("[│█·…░]", bare), "what we draw ourselves has its twin in ASCII"
    wide = [line for line in bare.splitlines() if width(line) > columns]
    assert not wide or encoding != "utf-8"
    assert bool(SGR.search(text)) == (colours != "none")
    kinds = {code.split(";")[1] for code in SGR.findall(text) if code.startswith(("38", "48"))}
    assert kinds == {"none": set(), "256": {"5"}, "full": {"2"}}[colours]


def test_cells_have_numbers_where_they_fit_and_shades_where_not() -> None:
    small = heat(triangle(3), display(60)).splitlines()
    assert small[0].split() == ["token0", "token1", "token2"]
    assert [line.split()[1:] for line in small[1:4]] == [["0.00"], ["0.38", "0.50"], ["0.75", "0.88", "1.00"]]
    assert small[4] == "weight: 0.00 ·░▒▓█ 1.00; blank: masked"
    large = heat(triangle(30), display(60)).splitlines()
    assert large[30].endswith("█████") and "0.5" not in "".join(large[1:31])
    assert len(small) == 5 and len(large) == 32, "no cell stands for several values"
    plain = heat(triangle(30), display(60, encoding="ascii")).splitlines()
    assert plain[30].endswith("#####")
    signed = heat(triangle(30, -1.0), display(60)).splitlines()
    assert signed[1].endswith("=") and signed[30].endswith("#")


def test_a_map_too_large_keeps_the_largest_of_its_neighbours() -> None:
    values = np.zeros((300, 300), np.float32)
    values[123, 45] = 1.0
    names = tuple(str(i) for i in range(300))
    shown = heat(Heat("", values, names, names, 0.0, 1.0, "x"), display(60))
    assert shown.count("█") == 2, "one cell, and the key"
    assert shown.endswith("each cell: the largest of 5 x 6 values")


def test_colours_are_those_of_the_pictures() -> None:
    full = heat(triangle(3), display(60, "full"))
    assert "48;2;68;1;84" in full and "48;2;253;231;37" in full, "viridis from end to end"
    assert "38;2;0;0;0" in full and "38;2;255;255;255" in full, "black on bright, white on dark"


def test_a_coloured_text_without_colours_says_its_values() -> None:
    block = Coloured("", ((" a", 0.25), ("b\n", float("nan"))), 0.0, 1.0, "bits")
    assert coloured(block, display()) == " a[0.25]b⏎\n[-]\nbits: from 0 to 1, in brackets"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=40))
def test_every_label_of_points_is_said_once(places: list[tuple[float, float]]) -> None:
    block = Points("", tuple((x, y, f"word{i}x", "g") for i, (x, y) in enumerate(places)))
    shown = points(block, display(100))
    assert all(len(re.findall(rf"word{i}x", shown)) == 1 for i in range(len(places)))


def test_wide_tables_lose_bars_then_words_then_stand_in_pieces() -> None:
    table = Table(("token_text", "p"), ((" Madrid", 1.0), (" a", 0.25)), bars="p")
    assert rows(table, display(60)).splitlines()[1].endswith("█" * 24)
    assert "█" not in rows(table, display(22))
    words = Table(("what", "n"), (("x" * 90, 1),))
    assert rows(words, display(40)).splitlines()[1] == "x" * 36 + "…  1"
    numbers = Table(("key", *"abcdefgh"), ((1, *(123456.0 + i for i in range(8))),))
    pieces = rows(numbers, display(60)).split("\n\n")
    assert len(pieces) == 2 and all(piece.startswith("key") for piece in pieces)
    assert all(width(line) <= 60 for piece in pieces for line in piece.splitlines())


def test_what_a_stream_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "COLORTERM", "WT_SESSION", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert Display.of(Stream()).colours == "256"
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert Display.of(Stream()).colours == "full"
    assert Display.of(Stream(terminal=False)).colours == "none"
    assert Display.of(Stream(terminal=False)).columns == 100
    monkeypatch.setenv("NO_COLOR", "1")
    assert Display.of(Stream()).colours == "none"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert Display.of(Stream()).colours == "none"
    assert not Display.of(Stream("cp1252")).unicode
