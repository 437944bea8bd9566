"""The picture of `feedforward`: strongest neurons, activation function, share of active neurons."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import PercentFormatter

from pophood.look.figures import parts
from pophood.look.figures.text import printable, token_label
from pophood.look.figures.theme import Theme
from pophood.look.math.activations import gelu, gelu_difference, gelu_tanh, silu
from pophood.look.source import quoted_token
from pophood.look.views.feedforward import FeedForwardView
from pophood.phrases import phrase

LONGEST = 14  # characters of a promoted token


def draw(view: FeedForwardView, figure: Figure, theme: Theme) -> None:
    """Draw the neurons with the tokens they promote, the activation functions, and the active neurons."""
    upper = 0.26 * len(view.neurons) + 0.6
    parts.size(figure, 9.5, upper + 2.9 + 2.4)
    grid = GridSpec(3, 1, figure=figure, height_ratios=(upper, 2.6, 1.9))
    _neurons(figure.add_subplot(grid[0]), view, theme)
    middle = grid[1].subgridspec(1, 2)
    _curves(figure.add_subplot(middle[0]), view, theme)
    _difference(figure.add_subplot(middle[1]), theme)
    _active(figure.add_subplot(grid[2]), view, theme)


def _neurons(axes: Axes, view: FeedForwardView, theme: Theme) -> None:
    lengths = [neuron.length for neuron in view.neurons]
    labels = [phrase("neuron {number}", number=neuron.number) for neuron in view.neurons]
    parts.bars(axes, labels, lengths, theme, numbers=[f"{length:.2f}" for length in lengths])
    longest = max(lengths) or 1.0
    axes.set(xlim=(0.0, 4.0 * longest), xticks=[])
    axes.spines["bottom"].set_visible(False)
    for row, neuron in enumerate(view.neurons):
        words = "   ".join(token_label(text, LONGEST) for text, _ in neuron.promoted)
        axes.text(1.35 * longest, row, words, va="center", fontsize=parts.LABEL, color=theme.text)
    axes.set_title(
        phrase("length of the vector that a neuron adds, and the tokens it promotes (· is a space)"),
        loc="left",
    )


def _curves(axes: Axes, view: FeedForwardView, theme: Theme) -> None:
    x = np.linspace(-4.0, 4.0, 321)
    used = view.config.activation
    curves = [
        ("gelu", gelu(x), phrase("GELU: x times Phi(x)"), "-"),
        ("gelu_tanh", gelu_tanh(x), phrase("tanh form"), "--"),
    ]
    curves += [("silu", silu(x), "SiLU", "-.")] if used == "silu" else []
    for number, (name, y, label, line) in enumerate(curves):
        words = phrase("{label}: used here", label=label) if name == used else label
        axes.plot(x, y, line, color=theme.accents[number], linewidth=1.8, label=words)
    axes.axhline(0.0, color=theme.line, linewidth=0.8, zorder=0)
    axes.axvline(0.0, color=theme.line, linewidth=0.8, zorder=0)
    axes.set(title=phrase("the activation function"), xlabel=phrase("input of the activation"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", labelcolor=theme.text, handlelength=3)


def _difference(axes: Axes, theme: Theme) -> None:
    x = np.linspace(-6.0, 6.0, 601)
    largest, place = gelu_difference()
    axes.plot(x, (gelu_tanh(x) - gelu(x)) * 1e4, color=theme.accents[2])
    for end in (-place, place):
        axes.axvline(end, color=theme.muted, linewidth=0.8, linestyle=":")
    axes.axhline(0.0, color=theme.line, linewidth=0.8, zorder=0)
    axes.set_title(
        phrase(
            "tanh form minus x times Phi(x): at most {largest:.1e}, near |x| = {place:.1f}",
            largest=largest,
            place=place,
        )
    )
    axes.set(xlabel=phrase("input of the activation"), ylabel=phrase("difference, in 1/10,000"))
    axes.spines[["top", "right"]].set_visible(False)


def _active(axes: Axes, view: FeedForwardView, theme: Theme) -> None:
    at = np.arange(len(view.active))
    axes.bar(at, view.active, width=0.8, color=theme.accents[0])
    axes.bar(at[view.token], view.active[view.token], width=0.8, color=theme.accents[1])
    axes.set_xticks(at, [token_label(token) for token in view.source.tokens])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(0.0, 1.0 if view.active.max() > 0.5 else 1.2 * max(float(view.active.max()), 0.01))
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    shown = printable(quoted_token(view.source, view.token))
    axes.set_title(phrase("share of neurons that are active (orange: {shown}, shown above)", shown=shown))
