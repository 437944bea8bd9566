"""The picture of `next` (small: one picture): the likeliest tokens, and the effect of each setting."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.look.figures.parts import LABEL, SMALL, bars, caption
from pophood.look.figures.text import token_label, width
from pophood.look.figures.theme import Theme
from pophood.look.views.next import NextView, SettingEffect

NARROW = 1.35  # inches of a setting's panel


def draw(view: NextView, figure: Figure, theme: Theme) -> None:
    """Draw the talk's bars large and the settings small, all with one scale."""
    labels = [token_label(str(text)) for text in view.top.column("token_text")]
    label_room = max(width(label, LABEL) for label in labels) / 72
    settings = view.left[1:]
    wide = 3.6 + label_room + NARROW * len(settings)
    figure.set_size_inches(min(wide, 40.0), min(0.26 * len(labels) + 1.1, 40.0))
    panels = figure.subplots(1, len(view.left), width_ratios=[3.4, *[NARROW] * len(settings)])
    highest = max(max(left.probabilities) for left in view.left)
    for panel, left in zip(panels, view.left, strict=True):
        raw = left is view.left[0]
        named = labels if raw else [""] * len(labels)
        bars(panel, named, left.probabilities, theme, accent=0 if raw else 2)
        panel.set_xlim(0, highest * 1.02)
        panel.set_xticks([])  # each bar has its number
        _numbers(panel, left, theme)
        panel.set_title("raw logits" if raw else left.setting)
        tokens = f"{left.tokens:,} token{'s' * (left.tokens != 1)}"
        panel.set_xlabel(f"{tokens}\n{left.entropy:.2f} bits, like\n1 of {left.choices:,.1f}", fontsize=SMALL)
    caption(
        figure,
        "Bars: probability of the next token. Under each: the number of tokens that can be drawn, the "
        "entropy, and the number of equally likely tokens with that entropy. · is a space.",
        theme,
    )


def _numbers(panel: Axes, left: SettingEffect, theme: Theme) -> None:
    """Write each probability at the right edge, `out` for a removed token."""
    for place, probability in enumerate(left.probabilities):
        panel.annotate(
            f"{probability:.4f}" if probability > 0 else "out",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize=LABEL,
            color=theme.text if probability > 0 else theme.muted,
        )
