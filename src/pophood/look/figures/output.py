"""The picture of `output`: the last hidden state, the largest logits, their exponentials and softmax."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pophood.look.figures.parts import bars, caption, heatmap, write_beside
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.output import OutputView
from pophood.phrases import phrase

ACROSS = 64  # numbers of the hidden state in one row


def draw(view: OutputView, figure: Figure, theme: Theme) -> None:
    """Draw the hidden state on top and the steps from left to right below it."""
    rows = -(-len(view.hidden) // ACROSS)
    high = 0.26 * len(view.top) + 0.9
    figure.set_size_inches(9.0, min(high + 0.11 * rows + 0.8, 40.0))
    grid = figure.add_gridspec(2, 3, height_ratios=[0.11 * rows + 0.4, high])
    _hidden(view, figure.add_subplot(grid[0, :]), theme, rows)
    logits, powers, shares = (figure.add_subplot(grid[1, column]) for column in range(3))
    labels = [token_label(token.text) for token in view.top]
    nothing = [""] * len(labels)  # the first panel names the tokens
    _logits(view, logits, theme, labels)
    numbers = [f"{token.exponential:.4f}" for token in view.top]
    bars(powers, nothing, [token.exponential for token in view.top], theme, numbers=numbers, accent=2)
    powers.set_title(phrase("e to the power of (logit - largest)"))
    powers.set_xlabel(
        phrase("sum over all {vocabulary:,} tokens: {total:.4f}", vocabulary=view.shape[1], total=view.total)
    )
    numbers = [f"{token.probability:.4f}" for token in view.top]
    bars(shares, nothing, [token.probability for token in view.top], theme, numbers=numbers)
    shares.set_title(phrase("divided by that sum: probability"))
    shares.set_xlabel(phrase('greedy takes the longest bar, "{token}"', token=token_label(view.greedy.text)))
    caption(figure, phrase("· is a space."))


def _hidden(view: OutputView, axes: Axes, theme: Theme, rows: int) -> None:
    padded = np.full(rows * ACROSS, np.nan)
    padded[: len(view.hidden)] = view.hidden
    reach = float(np.percentile(np.abs(view.hidden), 99)) or 1.0
    scale = phrase("value (ends at {reach:.3g})", reach=reach)
    heatmap(axes, padded.reshape(rows, ACROSS), theme, scale=scale, ends=(-reach, reach), diverging=True)
    axes.set_aspect("auto")
    axes.set_title(
        phrase("last hidden state h_T: {numbers} numbers, row by row", numbers=len(view.hidden)), loc="left"
    )


def _logits(view: OutputView, axes: Axes, theme: Theme, labels: list[str]) -> None:
    """Draw dots instead of bars, since the zero of a logit has no meaning."""
    places = range(len(view.top))
    values = [token.logit for token in view.top]
    axes.plot(values, places, "o", color=theme.accents[1], markersize=6)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.margins(x=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))  # no tick close to the next panel
    axes.spines[["top", "right"]].set_visible(False)
    for place, value in zip(places, values, strict=True):
        write_beside(axes, (value, place), f"{value:.2f}", theme.text, gap=6)
    features, vocabulary = view.shape
    axes.set_title(
        phrase("logits = h_T × W_O ({features} × {vocabulary:,})", features=features, vocabulary=vocabulary)
    )
    axes.set_xlabel(
        phrase("largest difference from the engine: {difference:.1e}", difference=view.difference)
    )
