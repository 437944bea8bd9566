"""The picture of `scale` (small: one picture): parameters on a logarithmic axis by year."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from pophood.look.figures.parts import legend, scatter, size
from pophood.look.figures.theme import Theme
from pophood.look.views.scale import ESTIMATE, LOCAL, X_LABEL, Y_LABEL, ScaleView, short_number
from pophood.phrases import phrase


def draw(view: ScaleView, figure: Figure, theme: Theme) -> None:
    """Draw every model; one whose year is unknown is a horizontal line, and estimates are marked."""
    size(figure, 8.2, 4.6)
    axes = figure.add_subplot()
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    points = []
    for model in view.models:
        size_text = short_number(model.parameters)
        if model.year is None:
            words, colour = f"{model.name}, {size_text}", theme.accents[3]
            axes.axhline(model.parameters, color=colour, linestyle="--", linewidth=1.2, label=words)
        else:
            words = phrase("{size}, estimate", size=size_text) if model.source == ESTIMATE else size_text
            points.append(
                (float(model.year), model.parameters, f"{model.name} ({words})", phrase(model.source))
            )
    scatter(axes, points, theme, key=False)
    for marks in axes.collections:
        if marks.get_label() == phrase(LOCAL):  # a ring, so that a mark below it stays visible
            marks.set(facecolor="none", edgecolor=theme.text, linewidth=1.2, sizes=[84])
    legend(axes)
    axes.margins(0.16)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.set(xlabel=phrase(X_LABEL), ylabel=phrase(Y_LABEL))
