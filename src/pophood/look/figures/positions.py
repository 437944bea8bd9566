"""The picture of `positions`: a curve and a similarity map, or angles and scores for rotary positions."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.look.figures import fit
from pophood.look.figures.parts import LABEL, colour_map, heatmap, legend, rim, scatter, size
from pophood.look.figures.theme import Theme
from pophood.look.views.positions import Learned, PositionsView, Rotary
from pophood.phrases import phrase

STYLES = ("-", "--", "-.", ":", (0, (1, 3)))


def draw(view: PositionsView, figure: Figure, theme: Theme) -> None:
    """Draw two panels side by side."""
    size(figure, 10.0, 4.4)
    left, right = figure.subplots(1, 2)
    if view.learned is not None:
        _curve(left, view.learned, theme)
        _similarity(right, view.learned, theme)
    elif view.rotary is not None:
        _angles(left, view.rotary, theme)
        _scores(right, view.rotary, theme)


def _curve(axes: Axes, learned: Learned, theme: Theme) -> None:
    """Draw the positions joined in order, some of them labelled."""
    count = len(learned.curve)
    x, y = learned.curve[:, 0], learned.curve[:, 1]
    axes.plot(x, y, color=theme.line, linewidth=0.7, zorder=1)
    colours = colour_map(theme.sequential)
    dots = axes.scatter(x, y, c=np.arange(count), cmap=colours, s=9, linewidths=0, zorder=2)
    fit.figure_of(axes).colorbar(dots, ax=axes, label=phrase("position"), fraction=0.05, pad=0.02)
    named = sorted({0, count // 4, count // 2, 3 * count // 4, count - 1})
    scatter(axes, [(float(x[i]), float(y[i]), str(i), "") for i in named], theme, key=False, marker_size=14)
    fit.later(axes, lambda: rim(axes, theme))
    shares = [phrase("{share:.1%} of the variance", share=share) for share in learned.explained]
    axes.set(
        xlabel=phrase("first singular vector ({share})", share=shares[0]),
        ylabel=phrase("second singular vector ({share})", share=shares[1]),
    )
    axes.set_title(phrase("the position vectors, joined in order"), fontsize=LABEL)


def _similarity(axes: Axes, learned: Learned, theme: Theme) -> None:
    scale = phrase("cosine of two position vectors")
    heatmap(axes, learned.similarity, theme, scale=scale, ends=(-1.0, 1.0), diverging=True)
    every = max(1, len(learned.places) // 8)
    ticks, labels = range(0, len(learned.places), every), [str(i) for i in learned.places[::every]]
    axes.set_xticks(ticks, labels)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel=phrase("position"), ylabel=phrase("position"))
    axes.set_title(phrase("similarity of positions"), fontsize=LABEL)


def _angles(axes: Axes, rotary: Rotary, theme: Theme) -> None:
    waves, scale = rotary.cosines, phrase("cosine of position x frequency")
    rows, columns = ([str(i) for i in range(size)] for size in waves.shape)
    heatmap(axes, waves, theme, rows=rows, columns=columns, scale=scale, ends=(-1.0, 1.0), diverging=True)
    axes.set_aspect("auto")
    axes.set(
        xlabel=phrase("pair of features: fast on the left, slow on the right"), ylabel=phrase("position")
    )
    axes.set_title(phrase("rotation of each pair"), fontsize=LABEL)


def _scores(axes: Axes, rotary: Rotary, theme: Theme) -> None:
    for i, (offset, scores) in enumerate(zip(rotary.offsets, rotary.scores, strict=True)):
        axes.plot(
            scores,
            color=theme.accents[i % len(theme.accents)],
            linestyle=STYLES[i % len(STYLES)],
            linewidth=5.0 - 0.9 * i,
            label=phrase("key at position {offset}", offset=offset),
        )
    axes.set_xlabel(phrase("distance from query to key, in tokens"))
    axes.set_ylabel(phrase("score of one query and key (block 0, head 0)"))
    axes.set_title(phrase("only the distance counts: the curves coincide"), fontsize=LABEL)
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes)
