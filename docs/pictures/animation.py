"""A recorded terminal as one animated SVG: CSS moves a strip of screens, no script runs, no font is loaded.

Equal rows are stored once. Block and line characters are drawn as rectangles, so that bars have no gaps
whatever the font. Whoever asks for less motion, or whose viewer has no animations, sees the last screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby, pairwise

from docs.pictures.recorder import PROMPT, Piece
from docs.pictures.screen import Row, Screen, Style

WIDTH, HEIGHT = 8.0, 17.0  # of a character, in pixels
MARGIN, BAR = 14.0, 30.0  # around the text; the window's bar on top
LONGEST_WAIT = 0.8  # seconds without anything new, at most
LONGEST_RUN = 4.0  # seconds of one command
READING, GLANCE = 2.2, 0.6  # seconds to look at what a command printed; at a further screen of it
LAST = 5.0  # seconds of the last screen
LINE = 0.03  # seconds from line to line
FRAME = 0.13  # seconds of the shortest screen
INK, PAPER, EDGE, DOTS = "#e6edf3", "#0d1117", "#30363d", ("#ff5f57", "#febc2e", "#28c840")
FONTS = 'ui-monospace,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace'
EIGHTHS = {character: eighth / 8 for eighth, character in enumerate("▏▎▍▌▋▊▉█", 1)}
LINES = {"━": (0.0, 1.0), "╸": (0.0, 0.5), "╺": (0.5, 0.5)}  # start and width, in cells


@dataclass(frozen=True, slots=True)
class Frame:
    """A screen and the second at which it appears."""

    second: float
    rows: tuple[Row, ...]


def frames(recording: Sequence[Sequence[Piece]], columns: int, rows: int) -> tuple[list[Frame], float]:
    """The screens of a recording and its length in seconds; waits are cut, long runs go by faster.

    Output comes line by line, and rests whenever it has filled the screen, so that it can be read.
    """
    screen = Screen(columns, rows)
    screen.feed(PROMPT)
    shown = [Frame(0.0, screen.rows())]
    clock = 0.6
    for pieces in recording:
        lines, rests = 0, 0.0
        for second, piece in zip(_paced(pieces), pieces, strict=True):
            for line in piece.text.splitlines(keepends=True):
                screen.feed(line)
                now = clock + second + rests
                if shown[-1].second > 0 and now - shown[-1].second < FRAME:
                    shown[-1] = Frame(shown[-1].second, screen.rows())
                elif screen.rows() != shown[-1].rows:
                    shown.append(Frame(now, screen.rows()))
                if line.endswith("\n"):
                    lines += 1
                    full = lines % (rows - 2) == 0
                    rests += LINE if not full else READING if lines < rows else GLANCE
        clock = shown[-1].second + READING
    return shown, shown[-1].second + LAST


def _paced(pieces: Sequence[Piece]) -> list[float]:
    """When each piece is to be shown, in seconds from the first key."""
    gaps = [0.0, *(min(b.second - a.second, LONGEST_WAIT) for a, b in pairwise(pieces))]
    running = sum(gap for gap, piece in zip(gaps, pieces, strict=True) if not piece.typed)
    rate = max(running / LONGEST_RUN, 1.0)
    return list(
        accumulate(gap if piece.typed else gap / rate for gap, piece in zip(gaps, pieces, strict=True))
    )


def svg(shown: Sequence[Frame], length: float, columns: int, title: str, description: str) -> str:
    """The animation as text; it repeats."""
    high = len(shown[0].rows) * HEIGHT
    width, height = columns * WIDTH + 2 * MARGIN, high + BAR + MARGIN
    names: dict[Row, str] = {}
    screens = []
    for number, frame in enumerate(shown):
        uses = []
        for place, row in enumerate(frame.rows):
            if row:
                name = names.setdefault(row, f"r{len(names)}")
                uses.append(f'<use href="#{name}" y="{number * high + place * HEIGHT:g}"/>')
        screens.append("".join(uses))
    stops = "".join(
        f"{100 * frame.second / length:.3f}%{{transform:translateY({-number * high:g}px)}}"
        for number, frame in enumerate(shown)
    )
    last = -(len(shown) - 1) * high
    dots = "".join(
        f'<circle cx="{20 + 18 * place}" cy="{BAR / 2:g}" r="5.5" fill="{colour}"/>'
        for place, colour in enumerate(DOTS)
    )
    rows = "\n".join(f'<g id="{name}">{"".join(_row(row))}</g>' for row, name in names.items())
    return f"""<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title" \
aria-describedby="description" width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}">
<title id="title">{escape(title)}</title>
<desc id="description">{escape(description)}</desc>
<style>
text{{font:13.2px {FONTS};fill:{INK};white-space:pre}}
.b{{font-weight:700}}.f{{opacity:.7}}.i{{font-style:italic}}.u{{text-decoration:underline}}
#strip{{transform:translateY({last:g}px);animation:play {length:.2f}s steps(1,end) infinite}}
@keyframes play{{{stops}}}
@media (prefers-reduced-motion:reduce){{#strip{{animation:none}}}}
</style>
<defs>
{rows}
</defs>
<rect x="0.5" y="0.5" width="{width - 1:g}" height="{height - 1:g}" rx="9" fill="{PAPER}" stroke="{EDGE}"/>
{dots}
<svg x="{MARGIN:g}" y="{BAR:g}" width="{columns * WIDTH:g}" height="{high:g}">
<g id="strip">
{chr(10).join(screens)}
</g>
</svg>
</svg>
"""


def _row(row: Row) -> Iterator[str]:
    """The elements of one row: colours behind, bars, then text."""
    column = 0
    for (style, kind), cells in groupby(row, lambda cell: (cell[1], _kind(cell[0]))):
        text = "".join(character for character, _ in cells)
        if style.behind:
            yield _rectangle(column, len(text), 0.0, HEIGHT, style.behind)
        if kind == "text" and text.strip():
            yield _text(column, text, style)
        elif kind == "block":
            wide = sum(EIGHTHS[character] for character in text)
            yield _rectangle(column, wide, 2.0, HEIGHT - 4, style.colour or INK, style.faint)
        elif kind == "line":
            for place, character in enumerate(text):
                start, wide = LINES[character]
                yield _rectangle(column + place + start, wide, HEIGHT / 2 - 2, 4, style.colour or INK)
        column += len(text)


def _kind(character: str) -> str:
    return "block" if character in EIGHTHS else "line" if character in LINES else "text"


def _text(column: int, text: str, style: Style) -> str:
    start = len(text) - len(text.lstrip())
    words = text.strip()
    flags = {"b": style.bold, "f": style.faint, "i": style.italic, "u": style.underlined}
    names = " ".join(name for name, wanted in flags.items() if wanted)
    marks = f' class="{names}"' if names else ""
    marks += f' style="fill:{style.colour}"' if style.colour else ""
    return (
        f'<text x="{(column + start) * WIDTH:g}" y="12.5" textLength="{len(words) * WIDTH:g}"{marks}>'
        f"{escape(words, quote=False)}</text>"
    )


def _rectangle(column: float, wide: float, top: float, high: float, colour: str, faint: bool = False) -> str:
    marks = ' opacity=".7"' if faint else ""
    return (
        f'<rect x="{column * WIDTH:g}" y="{top:g}" width="{wide * WIDTH:g}" height="{high:g}" '
        f'fill="{colour}"{marks}/>'
    )
