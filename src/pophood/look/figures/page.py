"""A view as one HTML file that needs no network: picture in both themes, words, tables, how it was made.

The picture is an image with a description; the tables hold its numbers. Nothing is needed from elsewhere, and
the page forbids itself to ask (content security policy). Also what a notebook shows.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from pophood.errors import NotHere
from pophood.look.figures.render import data_uri, draw, require, svg_of
from pophood.look.reproduce import python_code, shell_command
from pophood.look.view import View
from pophood.table import Table, count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ROWS = 1000  # of one table in a page; a file has the rest
WIDE = 1100  # CSS pixels; a wider picture scrolls instead of shrinking


def page(view: View, light: Figure | None = None) -> str:
    """The whole page of a view as text; `light`: its light picture, if it was drawn already.

    Raises NotHere without matplotlib.
    """
    body = [_figure(view, light or draw(view, "light")), _said(view), *_tables(view), _made(view)]
    return fill(view.title, facts_of(view), "\n".join(body))


def notebook_html(view: View) -> str:
    """The picture with description and notes for a notebook; without matplotlib, the tables and a hint."""
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in view.notes)
    try:
        require()
    except NotHere as missing:
        tables = "".join(table._repr_html_() for table in view.tables().values())
        return f"<h4>{html.escape(view.title)}</h4>{tables}{notes}<p>{html.escape(str(missing))}</p>"
    picture = svg_of(draw(view, "light"), view, "light", words=False)
    return (
        f"<figure style='margin:0'><figcaption><strong>{html.escape(view.title)}</strong></figcaption>"
        f"<img src='{data_uri(picture)}' alt='{html.escape(view.alt)}'>"
        f"<figcaption>{notes}</figcaption></figure>"
    )


def fill(
    title: str, facts: dict[str, str], body: str, images: str = "data:", heading: str | None = None
) -> str:
    """A page of ours around `body`, which is HTML already; title and facts are text.

    `images` says where pictures may come from; `heading` stands on the page in place of the title.
    """
    parts = files("pophood.look.figures")
    css, script, frame = (parts.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    own = f"style-src '{_hash(css)}'; script-src '{_hash(script)}'"
    return Template(frame).substitute(
        policy=f"default-src 'none'; img-src {images}; {own}; base-uri 'none'; form-action 'none'",
        title=escaped(title),
        heading=escaped(title if heading is None else heading),
        css=css,
        script=script,
        facts="\n".join(
            f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
            for name, value in facts.items()
            if value
        ),
        body=body,
    )


def facts_of(view: View) -> dict[str, str]:
    """What stands under the title: model, arithmetic, text."""
    source = view.source
    precision = source.precision
    if source.run_precision != source.precision:
        precision += f" (run takes {source.run_precision})"
    adapters = ", ".join(source.adapter_names())
    return {"Model": source.model, "Adapters": adapters, "Computed at": precision, "Text": source.text}


def _figure(view: View, drawn: Figure) -> str:
    light = svg_of(drawn, view, "light", words=False)
    dark = svg_of(draw(view, "dark"), view, "dark", words=False)
    width, height = _size(light)
    notes = "".join(f"<p>{escaped(note)}</p>" for note in view.notes)
    wide = ' wide" tabindex="0" role="region" aria-label="The picture, to be scrolled' if width > WIDE else ""
    return (
        f'<figure>\n<div class="picture{wide}"><picture>'
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{data_uri(dark)}">'
        f'<img src="{data_uri(light)}" width="{width}" height="{height}" alt="{escaped(view.alt)}">'
        f"</picture></div>\n<figcaption>{notes}</figcaption>\n</figure>"
    )


def _said(view: View) -> str:
    return f"<details><summary>The picture in words</summary><p>{escaped(view.alt)}</p></details>"


def _tables(view: View) -> list[str]:
    return ["<h2>Numbers</h2>", *(_table(name, table) for name, table in view.tables().items())]


def _table(name: str, table: Table) -> str:
    title = table.title or name
    rows = min(len(table), MOST_ROWS)
    right = [" class=number" if table.numeric(i) else "" for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{css}>{escaped(column)}</th>'
        for column, css in zip(table.columns, right, strict=True)
    )
    body = []
    for row in range(rows):
        cells = [
            f"<td{css}>{escaped(cell)}{_meter(table, row) if column == table.bars else ''}</td>"
            for cell, css, column in zip(table.cells(row), right, table.columns, strict=True)
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    length = count(len(table), "row")
    less = f" The first {rows:,} of {len(table):,} rows: the .csv file has all." if rows < len(table) else ""
    return (
        f"<details><summary>{escaped(title)} ({length})</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(title)}">'
        f"<table><caption>{escaped(title)}.{less}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{chr(10).join(body)}\n</tbody></table></div></details>"
    )


def _meter(table: Table, row: int) -> str:
    return f' <meter aria-hidden="true" min="0" max="1" value="{table.share(row):.6f}"></meter>'


def _made(view: View) -> str:
    made = {
        "command": ("In a terminal", shell_command(view.name, view.source, view.options)),
        "python": ("In Python", python_code(view.name, view.source, view.options)),
    }
    blocks = [
        f'<p>{words}</p><div class="code"><pre id="{name}">{escaped(code)}</pre>'
        f'<button type="button" data-copy="{name}" aria-label="Copy: {words}" hidden>Copy</button></div>'
        for name, (words, code) in made.items()
    ]
    return "\n".join(["<h2>How this was made</h2>", *blocks])


def _size(picture: bytes) -> tuple[int, int]:
    """Width and height of an SVG in CSS pixels."""
    found = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', picture) or re.search(
        rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', picture
    )
    assert found is not None
    width, height = (float(points) * 96 / 72 for points in found.groups())
    return round(width), round(height)


def escaped(text: str) -> str:
    """Text for HTML; control characters, which it cannot hold, become visible escapes."""
    shown = re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]",
        lambda match: match[0].encode("unicode_escape").decode("ascii"),
        text,
    )
    return html.escape(shown)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
