"""A formula of the course as a picture in both themes; without matplotlib as its plain text.

This is a file of its own because it alone draws mathematics. The TeX is limited to what matplotlib's mathtext
knows.
"""

from __future__ import annotations

import base64
import html
import io

from pophood.errors import NotHere

SIZE = 20  # points


def formula_html(plain: str, tex: str) -> str:
    """One formula: an image with its plain text as the alternative."""
    from pophood.look.figures import require

    try:
        require()
    except NotHere:
        return f"<pre>{html.escape(plain)}</pre>"
    images = "".join(_image(plain, tex, theme) for theme in ("light", "dark"))
    return f"<figure class=formula>{images}</figure>"


def _image(plain: str, tex: str, theme: str) -> str:
    drawn = base64.b64encode(formula_svg(tex, theme)).decode("ascii")
    words = html.escape(" ".join(plain.split()), quote=True)
    return f'<img class={theme} alt="{words}" src="data:image/svg+xml;base64,{drawn}">'


def formula_svg(tex: str, theme: str) -> bytes:
    """TeX (one line a row) as SVG on a transparent ground; raises ValueError for TeX that mathtext lacks."""
    from matplotlib.figure import Figure

    from pophood.look.figures.drawing import style
    from pophood.look.figures.theme import theme_named

    chosen = theme_named(theme)
    with style(chosen):
        figure = Figure()
        figure.text(
            0, 0, "\n".join(f"${line}$" for line in tex.split("\n")), fontsize=SIZE, color=chosen.text
        )
        file = io.BytesIO()
        figure.savefig(
            file,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.05,
            transparent=True,
            metadata={"Date": None},
        )
    return file.getvalue()
