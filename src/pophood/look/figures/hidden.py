"""The picture of `hidden` (small: one picture): the length of every token's vector at every place."""

from __future__ import annotations

from matplotlib.figure import Figure

from pophood.look.figures import parts
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.hidden import HiddenView
from pophood.phrases import phrase


def draw(view: HiddenView, figure: Figure, theme: Theme) -> None:
    """Draw one heat map, tokens down, places in the model across; the colours are logarithmic."""
    places, tokens = view.lengths.shape
    parts.size(figure, max(6.5, 2.2 + 0.34 * places), 1.2 + min(max(0.2 * tokens, 1.6), 9.0))
    axes = figure.subplots()
    rows = [token_label(token) for token in view.source.tokens]
    scale = phrase("length of the vector,\nlog10 (2 means 100)")
    parts.heatmap(axes, view.log_lengths, theme, rows=rows, columns=view.places, scale=scale, numbers=True)
    axes.set(aspect="auto", xlabel=phrase("place in the model"), ylabel=phrase("token"))
