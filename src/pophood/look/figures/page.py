"""A view as one HTML file: drawings, picture in both themes, description, tables, and how it was made.

The scripts of studio/pages draw the view's figures, to be pointed at, walked through and changed. Where they
are not built, the picture stands alone: an image with a description; the tables hold its numbers. Also what
a notebook shows.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from pophood.errors import NotFound
from pophood.look.data import figures_data
from pophood.look.figures.render import draw, has_matplotlib, require, svg_of
from pophood.look.view import View
from pophood.phrases import later, phrase
from pophood.table import Table, count
from pophood.web import built_script, data_uri, json_block, render_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 1000  # of one table in a page; a file has the rest
PLAIN = later(
    "A plain picture: this installation has no scripts that draw. `make studio` "
    "builds them in a checkout; released wheels have them."
)
WIDE = 1100  # CSS pixels; a wider picture scrolls instead of shrinking


def page(view: View, light: Figure | None = None) -> str:
    """Return the whole page of a view as text; `light` is its light picture, if that is already drawn.

    A page with drawings leaves the picture out without matplotlib; another page raises NotFound then.
    """
    figures = figures_data(view)
    drawn = bool(figures) and has_drawings()
    pictures = [] if drawn and not has_matplotlib() else pictures_of(view, light)
    return render_page(
        __package__,
        document=True,
        drawn="view" if drawn else None,
        title=view.title,
        figures=figures if drawn else [],
        data=json_block(figures) if drawn else "",
        plain="" if has_drawings() else phrase(PLAIN),
        facts=_facts(view),
        view=view,
        pictures=pictures,
        wide=bool(pictures) and pictures[0]["width"] > WIDE,
        tables=[(table.title or name, table, _length(table)) for name, table in view.tables().items()],
        most=MOST_ROWS,
        code={
            "command": (phrase("In a terminal"), view.shell_command()),
            "python": (phrase("In Python"), view.python_code()),
        },
    )


def has_drawings() -> bool:
    """Return True if this installation has the scripts that draw figures in pages."""
    return built_script("view") is not None


def pictures_of(view: View, light: Figure | None = None) -> list[dict[str, Any]]:
    """Return the picture in both themes, without title and notes: the address of the image, and its size.

    `light` is the light picture, if that is already drawn. Raises NotFound without matplotlib.
    """
    pictures = []
    for theme, figure in (("light", light), ("dark", None)):
        picture = svg_of(figure or draw(view, theme), view, theme, words=False)
        width, height = svg_size(picture)
        pictures.append({"theme": theme, "uri": data_uri(picture), "width": width, "height": height})
    return pictures


def notebook_html(view: View) -> str:
    """Return the picture with title and notes for a notebook; without matplotlib, the tables and a hint."""
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in view.notes)
    try:
        require()
    except NotFound as missing:
        tables = "".join(table._repr_html_() for table in view.tables().values())
        return f"<h4>{html.escape(view.title)}</h4>{tables}{notes}<p>{html.escape(str(missing))}</p>"
    picture = svg_of(draw(view, "light"), view, "light", words=False)
    return (
        f"<figure style='margin:0'><figcaption><strong>{html.escape(view.title)}</strong></figcaption>"
        f"<img src='{data_uri(picture)}' alt='{html.escape(view.alt)}'>"
        f"<figcaption>{notes}</figcaption></figure>"
    )


def svg_size(picture: bytes) -> tuple[int, int]:
    """Return the width and height of an SVG in CSS pixels."""
    match = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', picture) or re.search(
        rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture
    )
    assert match is not None
    width, height = (float(points) * 96 / 72 for points in match.groups())
    return round(width), round(height)


def _facts(view: View) -> dict[str, str]:
    """Return the facts under the title: model, adapters, precision, text."""
    source = view.source
    precision = source.precision
    if source.run_precision != source.precision:
        precision += phrase(" (run takes {precision})", precision=source.run_precision)
    adapters = ", ".join(source.adapter_names())
    return {
        "Model": source.model,
        "Adapters": adapters,
        phrase("Computed at"): precision,
        "Text": source.text,
    }


def _length(table: Table) -> tuple[str, str]:
    """Return the number of rows in words, and a remark if the page leaves some out."""
    more = phrase(
        " The first {most:,} of {rows:,} rows: the .csv file has all.", most=MOST_ROWS, rows=len(table)
    )
    return count(len(table), "row"), more if len(table) > MOST_ROWS else ""
