"""The picture and value parts of slides, for `deck.html`: formulas, views, tables.

A picture is drawn in both themes, and CSS shows one of them. Without matplotlib, a formula is shown as plain
text and a view as its tables.

Two slides are the rule for a page: the code stands beside the question, and what it gave beside the answer.
With more slides (`slides: 4` in the front matter), the run cells stand between the two, code beside output.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pophood.course.markup import to_html
from pophood.course.pages import SLIDES
from pophood.errors import NotFound
from pophood.look.figures.page import pictures_of, svg_size
from pophood.look.figures.render import rendered, require
from pophood.look.view import View
from pophood.table import Table
from pophood.web import data_uri, safe_html

Part = dict[str, Any]  # "kind" names a macro of deck.html; the other items are its values
MOST_ROWS = 16  # maximum rows of a table on a slide
SMALL = 12, 5  # maximum rows and columns of a table below its picture
WIDE = 2.5  # width over height from which a picture leaves room for a table
FORMULA_SIZE = 20  # points


def text(kind: str, words: str) -> Part:
    """Return a part of plain text."""
    return {"kind": kind, "text": words}


def html(kind: str, markdown: str) -> Part:
    """Return a part of Markdown."""
    return {"kind": kind, "html": safe_html(to_html(markdown))}


def value_parts(value: object) -> list[Part]:
    """Return the parts that show a cell's value: a view, a table, or any other value as text."""
    if isinstance(value, View):
        return _view(value)
    if isinstance(value, Table):
        return [_table(value, value.title)]
    return [{"kind": "out", "text": str(value)}]


def formula(plain: str, tex: str) -> Part:
    """Return a formula as an image whose description is its plain text."""
    try:
        require()
    except NotFound:
        return {"kind": "text", "text": plain}
    pictures = []
    for theme in ("light", "dark"):
        drawn = formula_svg(tex, theme)
        width, height = svg_size(drawn)
        pictures.append({"theme": theme, "uri": data_uri(drawn), "width": width, "height": height})
    return {"kind": "formula", "alt": " ".join(plain.split()), "pictures": pictures}


def formula_svg(tex: str, theme: str) -> bytes:
    """Draw TeX, one formula per line, as SVG on a transparent background.

    Raises ValueError for TeX that mathtext does not support.
    """
    from matplotlib.figure import Figure

    from pophood.look.figures.drawing import style
    from pophood.look.figures.theme import theme_named

    chosen = theme_named(theme)
    with style(chosen):
        figure = Figure()
        lines = "\n".join(f"${line}$" for line in tex.split("\n"))
        # `style` turns the parsing of formulas off.
        figure.text(0, 0, lines, fontsize=FORMULA_SIZE, color=chosen.text, parse_math=True)
        options = {"bbox_inches": "tight", "pad_inches": 0.05, "transparent": True}
        return rendered(figure, format="svg", metadata={"Date": None}, **options)


def _table(table: Table, title: str) -> Part:
    return {"kind": "table", "table": table, "title": title, "most": MOST_ROWS}


def _view(view: View) -> list[Part]:
    """Return the title, the picture, and below a wide one the first table, if it is small; and the notes."""
    notes, tables = [*view.notes], view.tables()
    first = next(iter(tables.values()))
    small = len(first) <= SMALL[0] and len(first.columns) <= SMALL[1]
    try:
        pictures = pictures_of(view)
        shown = [{"kind": "picture", "alt": view.alt, "pictures": pictures}]
        if small and pictures[0]["width"] >= WIDE * pictures[0]["height"]:
            shown.append(_table(first, "" if first.title == view.title else first.title))
    except NotFound as missing:
        shown = [_table(table, table.title or name) for name, table in tables.items()]
        notes.append(str(missing))
    return [{"kind": "view", "title": view.title, "shown": shown, "notes": notes}]


@dataclass(slots=True)
class Group:
    """A run cell: the text before it, its code, what it gave, and the text after the last one."""

    before: list[Part]
    code: Part
    shown: list[Part]
    after: list[Part] = field(default_factory=list)

    @property
    def notes(self) -> list[Part]:
        """The remarks of its views: they go to the notes, so that the picture has the slide."""
        return [text("note", note) for part in self.shown for note in part.get("notes", ())]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The parts beside the question and beside the answer, and the groups of each slide between the two."""

    beside_question: list[Part]
    beside_answer: list[Part]
    apart: list[list[Group]]


def arranged(slides: int, groups: Sequence[Group]) -> Arrangement:
    """Return where the run cells of a page with so many slides stand."""
    if slides == SLIDES:
        return Arrangement(*columns(groups), [])
    between = slides - SLIDES
    bounds = [len(groups) * i // between for i in range(between + 1)]
    apart = [list(groups[a:b]) for a, b in itertools.pairwise(bounds)]
    return Arrangement([], [], apart)


def columns(groups: Sequence[Group]) -> tuple[list[Part], list[Part]]:
    """Return what is said and what is shown of the groups on one slide."""
    said = [part for group in groups for part in (*group.before, group.code, *group.after)]
    return said, [part for group in groups for part in group.shown]
