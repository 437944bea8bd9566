"""The picture of `scale` (small: one picture): parameters on a logarithmic axis by year."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pophood.look.figures.parts import legend, log_counts, scatter, size
from pophood.look.figures.theme import Theme
from pophood.look.views.scale import ESTIMATE, LOCAL, X_LABEL, Y_LABEL, ModelSize, ScaleView, short_number


def draw(view: ScaleView, figure: Figure, theme: Theme) -> None:
    """Draw every model; one of unknown year is a horizontal line, and estimates are marked."""
    size(figure, 8.2, 4.6)
    axes = figure.add_subplot()
    dated = [(model, model.year) for model in view.models if model.year is not None]
    log_counts(axes)
    for model in view.models:
        if model.year is None:
            words = f"{model.name}, {short_number(model.parameters)}"
            axes.axhline(model.parameters, color=theme.accents[3], linestyle="--", linewidth=1.2, label=words)
    points = [(float(year), model.parameters, _label(model), model.source) for model, year in dated]
    scatter(axes, points, theme, key=False, marker_size=36)
    for marks in axes.collections:
        if marks.get_label() == LOCAL:  # a ring, so that a mark below it stays visible
            marks.set(facecolor="none", edgecolor=theme.text, linewidth=1.2, sizes=[84])
    legend(axes, theme)
    axes.margins(0.16)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.set_xlabel(X_LABEL)
    axes.set_ylabel(Y_LABEL)


def _label(model: ModelSize) -> str:
    mark = ", estimate" if model.source == ESTIMATE else ""
    return f"{model.name} ({short_number(model.parameters)}{mark})"
