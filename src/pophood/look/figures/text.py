"""Text in pictures: characters that the fonts can show, the width of text, line breaks.

Pictures use DejaVu Sans, which comes with matplotlib, so that they look the same on every machine. Chinese,
Japanese and Korean characters, which DejaVu Sans lacks, use a system font from CJK_FONTS if one is installed,
and are shown as escapes otherwise.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.ft2font import FT2Font, LoadFlags

FONT = "DejaVu Sans"
# The system fonts with Chinese, Japanese and Korean characters, in the order in which they are tried:
# those of Linux distributions, then of macOS and Windows.
CJK_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Source Han Sans",
    "Droid Sans Fallback",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "IPAGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Arial Unicode MS",
    "Yu Gothic",
    "Microsoft YaHei",
    "MS Gothic",
    "Malgun Gothic",
)
CJK_FILES = ("CJK-Regular", "CJK-Bold", "DroidSansFallback", "wqy-", "ipag", "YuGoth", "msyh", "malgun")
SMALLEST = 7.0  # points; no text is smaller at the size at which a picture is saved
LTR = "\u200e"  # LEFT-TO-RIGHT MARK, which has no width
_SIGNS = re.compile(r"(?:\\(?:x[0-9A-Fa-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[a-z]))+|[·…\"']+")
_REORDERING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@cache
def cjk_font() -> str | None:
    """Return the first of CJK_FONTS that is installed here; None without one.

    matplotlib caches its list of fonts on disk and misses new ones, so this looks for font files as well.
    """
    known = _installed()
    if known is None:
        for path in findSystemFonts():
            if any(mark in Path(path).name for mark in CJK_FILES):
                fontManager.addfont(path)
        known = _installed()
    return known


def _installed() -> str | None:
    names = {font.name for font in fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in names), None)


def families() -> list[str]:
    """Return the font families of a picture; a character is drawn with the first family that has it."""
    return [FONT, *(name for name in [cjk_font()] if name is not None)]


@cache
def _font(bold: bool = False, family: str = FONT) -> FT2Font:
    return get_font(findfont(FontProperties(family=family, weight="bold" if bold else "normal")))


def _family_of(character: str) -> str | None:
    """Return the family that a character is drawn with; None if no font has it."""
    return next((name for name in families() if _font(family=name).get_char_index(ord(character))), None)


def printable(text: str) -> str:
    r"""Escape the characters that no font can show and those that reorder text; keep line breaks and spaces.

    >>> printable("a\x1b\ue000")
    'a\\x1b\\ue000'
    """
    lines = (line.replace(LTR, "") if line.startswith(LTR) else line for line in text.split("\n"))
    return "\n".join(left_to_right("".join(c if _shows(c) else _escape(c) for c in line)) for line in lines)


def token_label(text: str, limit: int = 24) -> str:
    r"""Return a token's label in a picture: spaces as dots, missing glyphs as escapes, shortened to `limit`.

    >>> token_label(" Spain"), token_label("\n"), token_label("\ue000"), token_label("\xa0")
    ('·Spain', '\\n', '\\ue000', '\\xa0')
    """
    shown = "".join("·" if c == " " else c if _shows(c) and not c.isspace() else _escape(c) for c in text)
    return left_to_right(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def left_to_right(text: str) -> str:
    """Make a line with Hebrew or Arabic words read from the left; the words keep their order.

    It gets a mark at its start, and one after each escape or sign that would otherwise join the words beside
    it (Unicode's bidirectional algorithm, UAX #9). Other lines are returned unchanged.

    >>> left_to_right("plain"), len(left_to_right("יו"))
    ('plain', 3)
    """
    if not any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        return text
    return LTR + _SIGNS.sub(lambda match: f"{match[0]}{LTR}", text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@lru_cache(maxsize=4096)
def width(text: str, size: float, bold: bool = False) -> float:
    """Return the width of one line in points: the sum over its runs of characters of one font."""
    total = 0.0
    for family, run in groupby(text.replace(LTR, ""), key=lambda character: _family_of(character) or FONT):
        font = _font(bold, family)
        font.set_size(size, 72)
        font.set_text("".join(run), 0.0, flags=LoadFlags.NO_HINTING)
        total += float(font.get_width_height()[0]) / 64
    return total


def wrap(text: str, room: float, size: float, bold: bool = False) -> str:
    """Break a text into lines no wider than `room` points; a longer word gets a line of its own."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and width(longer, size, bold) > room:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


def _shows(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cs", "Cf", "Co", "Cn") or character in _REORDERING:
        return False
    return _family_of(character) is not None
