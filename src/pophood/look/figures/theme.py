"""Two themes and the colours of every picture, for matplotlib and terminals. Imports no matplotlib.

Categories have the colours of Okabe and Ito (2008). "viridis" grows evenly from dark to bright (van der Walt
and Smith, 2015). The diverging blue-orange scales are our own; their ends can be told apart with every common
kind of colour blindness.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pophood.errors import BadInput

ThemeName = Literal["light", "dark"]
Colour = tuple[int, int, int]  # red, green, blue: 0 to 255

# Name of a scale -> its colours at equal steps, with linear interpolation between them.
SCALES: dict[str, tuple[str, ...]] = {
    "viridis": (
        "#440154",
        "#482475",
        "#414487",
        "#355f8d",
        "#2a788e",
        "#21918c",
        "#22a884",
        "#44bf70",
        "#7ad151",
        "#bddf26",
        "#fde725",
    ),
    "blue-white-orange": ("#08519c", "#3a85c6", "#8fbfe0", "#f2f2f2", "#f7b267", "#e07b13", "#a34700"),
    "blue-black-orange": ("#7cc4ff", "#3a8fd6", "#1f4f7d", "#22272e", "#7d4a12", "#d67f1f", "#ffb661"),
}


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a picture; `sequential` and `diverging` name one of `SCALES`.

    Accents have the same order in both themes: blue, orange, green, purple, then two lighter ones.
    """

    name: ThemeName
    background: str
    surface: str  # of boxes on the background
    text: str
    muted: str  # of notes and ticks
    line: str  # of frames and grids
    accents: tuple[str, ...]
    sequential: str
    diverging: str


LIGHT = Theme(
    name="light",
    background="#ffffff",
    surface="#f3f5f7",
    text="#1b1f24",
    muted="#57606a",
    line="#c4ccd4",
    accents=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    sequential="viridis",
    diverging="blue-white-orange",
)
DARK = Theme(
    name="dark",
    background="#0d1117",
    surface="#1c232c",
    text="#e6edf3",
    muted="#9aa5b1",
    line="#3d4752",
    accents=("#56b4e9", "#e69f00", "#00b583", "#cc79a7", "#f0e442", "#d55e00"),
    sequential="viridis",
    diverging="blue-black-orange",
)
THEMES: dict[str, Theme] = {theme.name: theme for theme in (LIGHT, DARK)}


def theme_named(name: str) -> Theme:
    """Return the theme of this name; raises BadInput for any other name.

    >>> theme_named("dark").background
    '#0d1117'
    """
    if name not in THEMES:
        raise BadInput(f"there is no theme {name!r}: choose light or dark")
    return THEMES[name]


def rgb(colour: str) -> Colour:
    """Return `"#0d1117"` as three numbers.

    >>> rgb("#0d1117")
    (13, 17, 23)
    """
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def colour_at(scale: str, share: float) -> Colour:
    """Return the colour at `share` (clipped to 0 to 1) of one of `SCALES`.

    >>> colour_at("viridis", 0), colour_at("viridis", 1)
    ((68, 1, 84), (253, 231, 37))
    """
    stops = [rgb(colour) for colour in SCALES[scale]]
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    part = place - left
    first, second = stops[left], stops[left + 1]
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(first, second, strict=True))
    return red, green, blue


def luminance(colour: Colour) -> float:
    """Return the relative luminance of a colour, 0 for black to 1 for white (WCAG 2.2)."""
    shares = [channel / 255 for channel in colour]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.2): text needs 4.5, marks need 3.

    >>> round(contrast((0, 0, 0), (255, 255, 255)))
    21
    """
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def readable_on(colour: Colour) -> str:
    """Return black or white, whichever is readable on this colour."""
    return "#000000" if contrast(colour, (0, 0, 0)) >= contrast(colour, (255, 255, 255)) else "#ffffff"
