"""The picture of `dropout`: one mask, its effect on a token, and the average over many masks."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from pophood.look.figures import parts
from pophood.look.figures.text import printable, token_label
from pophood.look.figures.theme import Theme
from pophood.look.source import quoted_token
from pophood.look.views.dropout import MASKS, SHOWN, DropoutView
from pophood.phrases import phrase


def draw(view: DropoutView, figure: Figure, theme: Theme) -> None:
    """Draw the mask over tokens and features, below it the last token, below that the averages."""
    tokens, features = view.mask.shape[0], min(SHOWN, view.mask.shape[1])
    upper = min(max(0.2 * tokens, 1.0), 7.0)
    parts.size(figure, 9.0, upper + 0.9 + 2.3 + 2.3)
    grid = GridSpec(3, 1, figure=figure, height_ratios=(upper, 1.9, 1.7))
    _mask(figure.add_subplot(grid[0]), view, features, theme)
    _numbers(figure.add_subplot(grid[1]), view, features, theme)
    _averages(figure.add_subplot(grid[2]), view, theme)


def _mask(axes: Axes, view: DropoutView, features: int, theme: Theme) -> None:
    colours = (theme.accents[1], theme.surface)
    shown = view.mask[:, :features]
    axes.imshow(shown, cmap=ListedColormap(colours), vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(shown)), [token_label(token) for token in view.source.tokens])
    axes.tick_params(axis="y", length=0)
    axes.set_title(
        phrase(
            "one mask: the first {features} of {all:,} features of every token",
            features=features,
            all=view.mask.shape[1],
        )
    )
    axes.set_xlabel(phrase("feature"))
    labels = (
        phrase("zeroed ({zeros:.1%} of all)", zeros=view.zeros),
        phrase("survives: / {p:g}", p=1 - view.p),
    )
    pairs = zip(colours, labels, strict=True)
    parts.legend(axes, [Patch(facecolor=face, edgecolor=theme.line, label=label) for face, label in pairs])


def _numbers(axes: Axes, view: DropoutView, features: int, theme: Theme) -> None:
    before, after, mask = view.before[-1, :features], view.after[-1, :features], view.mask[-1, :features]
    at = np.arange(features)
    axes.axhline(0.0, color=theme.line, linewidth=0.8, zorder=0)
    axes.bar(at, before, width=0.8, color=theme.accents[0], label=phrase("before"))
    axes.plot(
        at[mask], after[mask], "_", color=theme.text, markersize=6, markeredgewidth=1.5, label=phrase("after")
    )
    zeroed = np.flatnonzero(~mask)
    axes.plot(zeroed, np.zeros(len(zeroed)), "x", color=theme.accents[1], label=phrase("zeroed"))
    shown = printable(quoted_token(view.source, -1))
    axes.set(
        title=phrase("the last token, {shown}, before and after this mask", shown=shown),
        xlabel=phrase("feature"),
        ylabel=phrase("value"),
    )
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    parts.legend(axes)


def _averages(axes: Axes, view: DropoutView, theme: Theme) -> None:
    expected = [math.sqrt(view.p / (1 - view.p) / masks) for masks in MASKS]
    axes.plot(MASKS, view.mean_errors, "o-", color=theme.accents[0], label=phrase("measured"))
    axes.plot(
        MASKS,
        expected,
        "--",
        color=theme.muted,
        label=phrase("expected: square root of\np / (1 - p) / masks"),
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if view.p > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title(
        phrase("the mean is preserved: distance between the average over many masks and the numbers")
    )
    axes.set(xlabel=phrase("masks averaged"), ylabel=phrase("relative error"))
    axes.grid(axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    parts.legend(axes)
