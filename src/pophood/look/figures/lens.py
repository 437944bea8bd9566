"""The picture of `lens`: the guess after every block at every position, and the ranks of one token."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from pophood.look.figures import fit
from pophood.look.figures.parts import SMALL, bars, caption, heatmap, write_in_cell
from pophood.look.figures.text import SMALLEST, token_label, width
from pophood.look.figures.theme import Theme
from pophood.look.views.lens import LensView
from pophood.phrases import phrase

WIDEST = 10  # characters of a guess
WIDEST_CELL, PANEL = 0.52, 2.6  # inches: widest cell, width of the panel of the followed token


def draw(view: LensView, figure: Figure, theme: Theme) -> None:
    """Draw the map with the last block on top, and the followed token's probabilities beside it."""
    layers, places = view.probabilities.shape
    labels = [[token_label(text, WIDEST) for text in row] for row in view.guess_texts[::-1]]
    cell = min(max(width(label, SMALLEST) for row in labels for label in row) / 72 + 0.08, WIDEST_CELL)
    map_width = max(cell * places, 2.0)
    figure.set_size_inches(min(map_width + PANEL + 2.0, 40.0), min(0.2 * layers + 1.2, 40.0))
    heat, beside = figure.subplots(1, 2, width_ratios=[map_width, PANEL])
    rows = [phrase("block {block}", block=i) for i in range(layers)][::-1]
    columns = [token_label(view.source.tokens[p], WIDEST) for p in view.positions]
    scale = phrase("probability of the guess")
    shown = view.probabilities[::-1]
    image = heatmap(heat, shown, theme, rows=rows, columns=columns, scale=scale, ends=(0.0, 1.0))
    heat.set(aspect="auto", xlabel=phrase("after the token"))
    heat.set_title(phrase("the guess after each block"), loc="left")
    fit.later(heat, lambda: _guesses(heat, image, view))
    _chosen(view, beside, theme)
    caption(figure, phrase("· is a space."))


def _guesses(axes: Axes, image: AxesImage, view: LensView) -> None:
    """Write every guess into its cell, cut to the cell's width."""
    corner, opposite = axes.transData.transform([(0, 0), (1, 1)])
    room = abs(opposite[0] - corner[0]) / fit.points_to_pixels(axes) - 2
    for (row, column), probability in np.ndenumerate(view.probabilities[::-1]):
        text = _fitting(view.guess_texts[-1 - row][column], room)
        write_in_cell(axes, image, (column, row), probability, text, SMALLEST)


def _fitting(text: str, room: float) -> str:
    """Return a token's label, cut until it fits into `room` points."""
    labels = (token_label(text, limit) for limit in range(WIDEST, 1, -1))
    return next((label for label in labels if width(label, SMALLEST) <= room), "")


def _chosen(view: LensView, axes: Axes, theme: Theme) -> None:
    layers = len(view.ranks)
    numbers = [
        phrase("{chance:.4f}, no. {rank:,}", chance=chance, rank=rank)
        for chance, rank in zip(view.chances, view.ranks, strict=True)
    ]
    bars(axes, [""] * layers, view.chances[::-1], theme, numbers=numbers[::-1], accent=1)
    axes.set(ylim=(layers - 0.5, -0.5), yticks=[])
    axes.set(xlim=(0, 2.6), xticks=[0, 0.5, 1])  # bars end at 1, numbers follow
    axes.set_xlabel(phrase("probability and rank"), fontsize=SMALL)
    axes.set_title(
        phrase(
            "{target_text} after position {position}",
            target_text=token_label(view.target_text),
            position=view.position,
        ),
        loc="left",
    )
