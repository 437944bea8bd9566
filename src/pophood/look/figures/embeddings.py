"""The picture of `embeddings`: the talk's map of tokens, and the cosines of pairs beside a control."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.look.figures.parts import bars, caption, rim, scatter, size
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme
from pophood.look.views.embeddings import Control, EmbeddingsView, Piece
from pophood.phrases import phrase

HATCH = ("", "///")


def draw(view: EmbeddingsView, figure: Figure, theme: Theme) -> None:
    """Draw the map without axes, as the talk does, and the cosines of related words to its right."""
    side = 5.6 if len(view.pieces) <= 40 else 8.0
    size(figure, side + (4.4 if view.related else 1.0), side)
    space, *others = figure.subplots(1, 2, width_ratios=[side, 2.4]) if view.related else [figure.subplots()]
    points = [(piece.x, piece.y, _label(piece), piece.group) for piece in view.pieces]
    scatter(space, points, theme)
    for one, other in view.joined():
        space.plot([one.x, other.x], [one.y, other.y], color=theme.line, linewidth=1.2, zorder=1)
    space.set_aspect("equal", adjustable="datalim")
    space.set_axis_off()
    if others:
        _cosines(view, figure, others[0], theme)


def _cosines(view: EmbeddingsView, figure: Figure, cosines: Axes, theme: Theme) -> None:
    caption(figure, phrase("Lines join related words, at the first token of each."))
    labels = [f"{a} – {b}" for a, b in (related.pair for related in view.related)]
    values = [related.cosine for related in view.related]
    bars(cosines, labels, values, theme, numbers=[f"{round(value, 2) + 0.0:.2f}" for value in values])
    words = []
    for control, hatch in zip(view.controls, HATCH, strict=False):
        _band(cosines, control, hatch, theme)
        words.append(
            phrase(
                "{what}: {label}, mean {mean:.2f}",
                what=phrase("hatched") if hatch else phrase("plain"),
                label=control.label,
                mean=control.mean,
            )
        )
    caption(
        figure,
        phrase(
            "Bands show the middle 95 % of the cosines of unrelated pairs ({words}).", words="; ".join(words)
        ),
    )
    rim(cosines, theme)
    low = min(0.0, *values, *(control.low for control in view.controls))
    high = max(*values, *(control.high for control in view.controls))
    cosines.set(ylim=(max(len(labels), 6) - 0.4, -0.6), xlim=(low * 1.15, high + 0.28 * (high - low)))
    cosines.set_xlabel(phrase("cosine of the two words' vectors"))


def _label(piece: Piece) -> str:
    """Return a token's label, with its word if the token is only a part of one."""
    label = token_label(piece.text)
    return (
        label
        if piece.text.strip() == piece.word.strip()
        else phrase("{label} (of {word})", label=label, word=token_label(piece.word))
    )


def _band(axes: Axes, control: Control, hatch: str, theme: Theme) -> None:
    face = "none" if hatch else theme.line
    style: dict[str, Any] = {"facecolor": face, "edgecolor": theme.line, "hatch": hatch, "linewidth": 0.6}
    axes.axvspan(control.low, control.high, alpha=0.6, zorder=0, **style)
    axes.axvline(control.mean, color=theme.muted, linewidth=1.0, linestyle=":" if hatch else "-", zorder=1)
