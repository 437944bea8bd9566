"""The picture of `before` (small: one picture): token rows + position rows = first hidden states."""

from __future__ import annotations

from matplotlib.figure import Figure

from pophood.look.figures.parts import LABEL, colour_bar, heatmap, size
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.before import DRAWN, SIGNS, BeforeView
from pophood.phrases import phrase


def draw(view: BeforeView, figure: Figure, theme: Theme) -> None:
    """Draw the summands and the sum side by side, one row per token, with one colour scale."""
    tokens, features = view.first.shape
    shown = min(DRAWN, features)
    size(figure, 1.6 + 3.0 * len(view.rows), min(1.0 + 0.2 * tokens, 3.0 + 0.115 * tokens))
    all_axes = figure.subplots(1, len(view.rows), squeeze=False)[0].tolist()
    for axes, (name, values) in zip(all_axes, view.rows, strict=True):
        rows = [token_label(token) for token in view.source.tokens] if axes is all_axes[0] else []
        columns = [str(i) for i in range(shown)]
        ends = (-view.reach, view.reach)
        image = heatmap(axes, values[:, :shown], theme, rows=rows, columns=columns, ends=ends, diverging=True)
        axes.set(
            aspect="auto",
            xlabel=phrase("feature, first {shown} of {features}", shown=shown, features=features),
        )
        axes.set_title(phrase(SIGNS.get(name, name)), fontsize=LABEL)
    colour_bar(image, all_axes, theme, phrase("value of a feature"))
