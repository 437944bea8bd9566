"""The picture of `next` (small: one picture): the likeliest tokens, and the effect of each setting."""

from __future__ import annotations

from matplotlib.figure import Figure

from pophood.look.figures.parts import LABEL, SMALL, bars, caption, write_beside
from pophood.look.figures.text import token_label, width
from pophood.look.figures.theme import Theme
from pophood.look.views.next import NextView
from pophood.phrases import phrase
from pophood.table import count

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
        panel.set(xlim=(0, highest * 1.02), xticks=[])  # each bar has its number
        for place, probability in enumerate(left.probabilities):
            text, colour = (
                (f"{probability:.4f}", theme.text) if probability > 0 else (phrase("out"), theme.muted)
            )
            write_beside(panel, (1, place), text, colour, gap=2, xycoords=("axes fraction", "data"))
        panel.set_title(phrase("raw logits") if raw else left.setting)
        tokens = count(left.tokens, "token")
        panel.set_xlabel(
            phrase(
                "{tokens}\n{entropy:.2f} bits, like\n1 of {choices:,.1f}",
                tokens=tokens,
                entropy=left.entropy,
                choices=left.choices,
            ),
            fontsize=SMALL,
        )
    caption(
        figure,
        phrase(
            "Bars: probability of the next token. Under each: the number of tokens that "
            "can be drawn, the entropy, and the number of equally likely tokens with that "
            "entropy. · is a space."
        ),
    )
