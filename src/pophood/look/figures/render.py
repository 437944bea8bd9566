"""Render a view: as a matplotlib figure, and as SVG or PNG bytes. matplotlib is imported late.

The same view gives the same bytes: no date, no random ids.
"""

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING, Any

from pophood.errors import NotFound
from pophood.look.figures.theme import theme_named
from pophood.look.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "pictures need matplotlib, which is not installed: `pip install 'pophood[plot]'` brings it"
PIXELS_PER_INCH = 160
SVG_PIXELS_PER_INCH = 200  # of the cells of heat maps, which SVG holds as images


def has_matplotlib() -> bool:
    """Return True if matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def require() -> None:
    """Raise NotFound, with the remedy, if matplotlib is not installed."""
    if not has_matplotlib():
        raise NotFound(MISSING)


def draw(view: View, theme: str = "light") -> Figure:
    """Return the picture of a view as a matplotlib figure; raises NotFound without matplotlib."""
    chosen = theme_named(theme)
    require()
    from pophood.look.figures.drawing import draw_view

    return draw_view(view, chosen)


def svg(view: View, theme: str) -> bytes:
    """Return the picture as SVG with <title> and <desc>; letters are outlines, so that no font is needed."""
    return svg_of(draw(view, theme), view, theme)


def svg_of(figure: Figure, view: View, theme: str, *, words: bool = True) -> bytes:
    """Return an already drawn figure as SVG; without `words`, its title and notes are cut off."""
    from pophood.look.figures.drawing import style
    from pophood.look.figures.fit import wordless

    options: dict[str, Any] = {"format": "svg", "dpi": SVG_PIXELS_PER_INCH, "metadata": {"Date": None}}
    with style(theme_named(theme)):
        if words:
            drawn = rendered(figure, **options)
        else:
            with wordless(figure) as part:
                drawn = rendered(figure, bbox_inches=part, **options)
    title, alt = (html.escape(_plain(text)) for text in (view.title, view.alt))
    inside = f'<title id="title">{title}</title>\n <desc id="description">{alt}</desc>\n'
    marked = 'role="img" aria-labelledby="title" aria-describedby="description"'
    before, head, after = _number_clips(drawn.decode()).partition("<svg ")
    attributes, _, rest = after.partition(">")
    return f"{before}{head}{marked} {attributes}>\n {inside}{rest}".encode()


def _number_clips(drawn: str) -> str:
    """Number the clipping paths of an SVG.

    matplotlib names them by a hash of their edges, whose last digits differ from run to run.
    """
    numbers: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], f"clip{len(numbers)}")

    return re.sub(r'(id="|url\(#)(p[0-9a-f]{10})', numbered, drawn)


def png(view: View, theme: str) -> bytes:
    """Return the picture as PNG, with title and description in its metadata."""
    from pophood.look.figures.drawing import style

    figure = draw(view, theme)
    words = {"Title": _plain(view.title), "Description": _plain(view.alt), "Software": "pophood"}
    with style(theme_named(theme)):
        return rendered(figure, format="png", dpi=PIXELS_PER_INCH, metadata=words)


def rendered(figure: Figure, **options: Any) -> bytes:
    """Return what matplotlib's `savefig` writes."""
    file = io.BytesIO()
    figure.savefig(file, **options)
    return file.getvalue()


def _plain(text: str) -> str:
    """Replace the control characters that XML and PNG cannot hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
