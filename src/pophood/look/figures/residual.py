"""The picture of `residual` (small: one picture): the share that attention and feed-forward add."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pophood.look.figures import parts
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.residual import SUBLAYERS, ResidualView
from pophood.phrases import phrase

MARKS = ("o", "s")


def draw(view: ResidualView, figure: Figure, theme: Theme) -> None:
    """Draw share and cosine as medians over the tokens, and below one heat map of shares per sublayer."""
    _, layers, tokens = view.share.shape
    lower = min(max(0.2 * tokens, 1.4), 9.0)
    parts.size(figure, max(8.5, 2.5 + 0.3 * layers), 2.6 + 1.0 + lower)
    grid = GridSpec(2, 2, figure=figure, height_ratios=(2.2, lower))
    _lines(view, figure, grid, theme)
    maps = [figure.add_subplot(grid[1, s]) for s in range(2)]
    rows = [token_label(token) for token in view.source.tokens]
    step = 1 if layers <= 12 else 2 if layers <= 24 else 5  # blocks between two labels
    columns = [str(layer) if layer % step == 0 else "" for layer in range(layers)]
    for s, axes in enumerate(maps):
        named = rows if s == 0 else []
        image = parts.heatmap(
            axes, view.log_share(s), theme, rows=named, columns=columns, ends=view.limits(), diverging=True
        )
        axes.set(
            aspect="auto",
            title=phrase("{sublayer}, by token", sublayer=phrase(SUBLAYERS[s])),
            xlabel=phrase("block"),
        )
    parts.colour_bar(image, maps, theme, phrase("length of dX / length of X,\nlog10 (-1: a tenth)"))


def _lines(view: ResidualView, figure: Figure, grid: GridSpec, theme: Theme) -> None:
    shares, cosines = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    for s, name in enumerate(SUBLAYERS):
        style = {"color": theme.accents[s], "marker": MARKS[s], "markersize": 4.0, "label": phrase(name)}
        shares.plot(np.median(view.share[s], axis=1), **style)  # type: ignore[arg-type]
        cosines.plot(np.median(view.cosine[s], axis=1), **style)  # type: ignore[arg-type]
    shares.set_yscale("log")
    shares.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    shares.yaxis.set_minor_formatter(NullFormatter())
    shares.set_title(phrase("length of dX / length of X"))
    cosines.set_title(phrase("cosine of dX with X"))
    cosines.axhline(0.0, color=theme.line, linewidth=0.8)
    for axes in (shares, cosines):
        axes.set_xlabel(phrase("block"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    shares.legend(loc="best", labelcolor=theme.text)
