"""A view's picture as a matplotlib figure: style, title, notes; the view's own module draws the rest.

It uses only the object interface (no pyplot), and restores matplotlib's settings afterwards.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.rcsetup import cycler
from matplotlib.text import Text

from pophood.look.figures import fit, parts
from pophood.look.figures.text import families, printable
from pophood.look.figures.theme import Theme
from pophood.look.view import View


def draw_view(view: View, theme: Theme) -> Figure:
    """Draw `view` in this theme, with its title and notes; the figure has no window."""
    with style(theme):
        layout = ConstrainedLayoutEngine(compress=True, w_pad=fit.PAD, h_pad=fit.PAD)
        figure = Figure(figsize=(7.0, 4.5), layout=layout)
        FigureCanvasAgg(figure)
        painter = importlib.import_module(view.painter)
        painter.draw(view, figure, theme)
        for note in view.notes:
            parts.caption(figure, note)
        fit.frame(figure, printable(view.title), theme, parts.TITLE, parts.SMALL)
        fit.finish(figure)
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)  # dollar signs stay, even if the figure is drawn again elsewhere
    return figure


@contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Apply matplotlib's defaults with our colours and sizes inside a `with` block."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(theme))
        yield


def _settings(theme: Theme) -> Any:
    return {
        "font.family": families(),
        "font.size": parts.LABEL,
        "axes.titlesize": 9.0,
        "axes.titlecolor": theme.text,
        "axes.labelsize": parts.LABEL,
        "axes.labelcolor": theme.text,
        "axes.edgecolor": theme.line,
        "axes.facecolor": theme.background,
        "axes.prop_cycle": cycler(color=theme.accents),
        "axes.unicode_minus": True,
        "figure.facecolor": theme.background,
        "figure.dpi": 100.0,
        "grid.color": theme.line,
        "grid.linewidth": 0.6,
        "legend.fontsize": parts.LABEL,
        "legend.frameon": False,
        "legend.labelcolor": theme.text,
        "text.color": theme.text,
        "text.parse_math": False,  # a token may hold dollar signs
        "text.hinting": "no_hinting",  # a word has the same width at every resolution
        "xtick.color": theme.line,
        "ytick.color": theme.line,
        "xtick.labelcolor": theme.text,
        "ytick.labelcolor": theme.text,
        "xtick.labelsize": parts.SMALL,
        "ytick.labelsize": parts.SMALL,
        "svg.fonttype": "path",  # looks the same on machines without our font
        "svg.hashsalt": "pophood",
    }
