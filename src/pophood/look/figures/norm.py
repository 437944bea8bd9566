"""The picture of `norm` (small: one picture): the spread of each token's features before and after."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from pophood.look.figures import parts
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.norm import NormView
from pophood.phrases import phrase

FAR = 20.0  # a panel whose extremes are this many times its usual range gets logarithmic ends


def draw(view: NormView, figure: Figure, theme: Theme) -> None:
    """Draw three panels, one row per token: its range as a thin line, 90 % as a thick one, its mean."""
    tokens = view.source.tokens
    parts.size(figure, 9.0, 1.6 + min(max(0.2 * len(tokens), 1.4), 9.0))
    panels = figure.subplots(1, 3)
    shift = phrase("and shift") if view.shift is not None else phrase("(this norm has no shift)")
    middle = phrase("mean 0, variance 1") if view.kind == "layer" else phrase("root mean square 1")
    names = (
        phrase("before"),
        phrase("normalised: {middle}", middle=middle),
        phrase("after gain {shift}", shift=shift),
    )
    for stage, (axes, name) in enumerate(zip(panels, names, strict=True)):
        _panel(axes, view, stage, theme)
        axes.set(title=name, yticks=[], ylim=(len(tokens) - 0.4, -0.6))
    panels[0].set_yticks(range(len(tokens)), [token_label(token) for token in tokens])
    parts.caption(
        figure,
        phrase(
            "Each row is one token's {features:,} features: the thin line is their range, "
            "the thick one the range from 5 % to 95 %, the dot their mean.",
            features=view.before.shape[1],
        ),
    )


def _panel(axes: Axes, view: NormView, stage: int, theme: Theme) -> None:
    least, low, _, high, largest = view.quantiles(stage)
    rows = np.arange(len(least))
    thick = 4.0 if len(rows) <= 40 else 1.6
    axes.axvline(0.0, color=theme.line, linewidth=0.8, zorder=0)
    axes.hlines(rows, least, largest, color=theme.accents[0], linewidth=0.8)
    axes.hlines(rows, low, high, color=theme.accents[0], linewidth=thick)
    axes.plot(view.means[stage], rows, "o", color=theme.accents[1], markersize=min(4.0, thick), linewidth=0)
    axes.set_xlabel(phrase("value of a feature"))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    usual = float(np.median(np.maximum(-low, high)))
    reach = float(max(-least.min(), largest.max()))
    if reach > FAR * usual > 0:
        axes.set_xscale("symlog", linthresh=usual)
        axes.set_xticks([-reach, -usual, 0.0, usual, reach], minor=False)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(phrase("value of a feature (logarithmic beyond ±{usual:.2g})", usual=usual))
