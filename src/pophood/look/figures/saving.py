"""Views as files, by the ending of the name: pictures (.svg .png), a page (.html), data (.csv .json .npz).

The same view gives the same bytes: no date, no random ids. Only pictures and pages need matplotlib.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pophood import system
from pophood.errors import BadInput
from pophood.look.figures import draw
from pophood.look.figures.theme import theme_named
from pophood.look.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".svg", ".png", ".html")  # what needs matplotlib
PIXELS_PER_INCH = 160
SVG_PIXELS_PER_INCH = 200  # of the cells of heat maps, which SVG holds as images


def ending(path: str | PathLike[str]) -> str:
    """How a file is to be written, by its name; raises for a name or a place that will not do."""
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in WRITERS:
        got = f"the ending {target.suffix!r}" if target.suffix else "no ending"
        raise BadInput(f"{target}: {got} says no format: end the name in {', '.join(WRITERS)}")
    system.check_writable_target(path)
    return kind


def save_view(view: View, path: str | PathLike[str], theme: str = "light") -> None:
    """Write `view` to `path`, whole or not at all; a page holds both themes."""
    write = WRITERS[ending(path)]
    theme_named(theme)
    system.atomic_write(path, write(view, theme))


def svg(view: View, theme: str) -> bytes:
    """The picture as SVG with <title> and <desc>; letters are outlines, so that no font is needed."""
    return svg_of(draw(view, theme), view, theme)


def svg_of(figure: Figure, view: View, theme: str, *, words: bool = True) -> bytes:
    """The same of a figure that was drawn already; without `words` title and notes are cut off."""
    from pophood.look.figures.drawing import style
    from pophood.look.figures.fit import wordless

    options: dict[str, Any] = {"format": "svg", "dpi": SVG_PIXELS_PER_INCH, "metadata": {"Date": None}}
    with style(theme_named(theme)):
        if words:
            drawn = _rendered(figure, **options)
        else:
            with wordless(figure) as part:
                drawn = _rendered(figure, bbox_inches=part, **options)
    inside = (
        f'<title id="title">{_xml(view.title)}</title>\n <desc id="description">{_xml(view.alt)}</desc>\n'
    )
    marked = 'role="img" aria-labelledby="title" aria-describedby="description"'
    text = drawn.decode("utf-8")
    return re.sub(
        r"<svg ([^>]*)>", lambda head: f"<svg {marked} {head[1]}>\n {inside}", text, count=1
    ).encode()


def png(view: View, theme: str) -> bytes:
    """The picture as PNG; title and words stand in its metadata."""
    from pophood.look.figures.drawing import style

    figure = draw(view, theme)
    words = {"Title": _plain(view.title), "Description": _plain(view.alt), "Software": "pophood"}
    with style(theme_named(theme)):
        return _rendered(figure, format="png", dpi=PIXELS_PER_INCH, metadata=words)


def _page(view: View, theme: str) -> bytes:
    from pophood.look.figures.page import page

    return page(view).encode("utf-8")


def _csv(view: View, theme: str) -> bytes:
    return view.to_csv().encode("utf-8")


def _json(view: View, theme: str) -> bytes:
    return (view.to_json() + "\n").encode("utf-8")


def _npz(view: View, theme: str) -> bytes:
    arrays: dict[str, Any] = view.arrays()
    if not arrays:
        raise BadInput(f"look {view.name} has tables, no arrays: save it as .csv or .json")
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


WRITERS: dict[str, Callable[[View, str], bytes]] = {
    ".svg": svg,
    ".png": png,
    ".html": _page,
    ".csv": _csv,
    ".json": _json,
    ".npz": _npz,
}


def _rendered(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, **options)
    return file.getvalue()


def _xml(text: str) -> str:
    return html.escape(_plain(text))


def _plain(text: str) -> str:
    """A text without the control characters that XML and PNG cannot hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
