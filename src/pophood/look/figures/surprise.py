"""The picture of `surprise`: the text in lines, every token on the colour of its surprisal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pophood.look.figures.parts import caption, centred, mixed
from pophood.look.figures.text import token_label, width
from pophood.look.figures.theme import Theme, readable_on
from pophood.look.views.surprise import HIGH, SurpriseView
from pophood.phrases import later, phrase

WIDE = 8.0  # inches
ROOM = 72 * WIDE - 24  # points of a line
TEXT, BOX, STEP, GAP = 10.0, 15.0, 20.0, 1.5  # points
MOST_LINES = 120
TICKS = {
    0: later("certain"),
    1: "1/2",
    3.3219: "1/10",
    6.6439: "1/100",
    9.9658: "1/1,000",
    12: later("rarer"),
}

Placed = tuple[float, float, float, int]  # left, top, width, index of the token


def draw(view: SurpriseView, figure: Figure, theme: Theme) -> None:
    """Draw the text as it runs, with its line breaks, over a colour bar of probabilities."""
    boxes = list(_flow(view.source.tokens))
    tall = boxes[-1][1] + STEP
    figure.set_size_inches(WIDE, tall / 72 + 0.75)
    axes, key = figure.subplots(2, 1, height_ratios=[tall / 72, 0.16])
    axes.set_axis_off()
    axes.set(xlim=(0, ROOM), ylim=(tall, 0))
    colours = LinearSegmentedColormap.from_list(
        "surprise", [mixed(theme.accents[1], theme.background, share) for share in (0.0, 0.5, 1.0)]
    )
    scale = ScalarMappable(Normalize(0, HIGH), colours)
    for box in boxes:
        _token(axes, scale, view, box, theme)
    bar = figure.colorbar(scale, cax=key, orientation="horizontal")
    bar.outline.set_edgecolor(theme.line)
    bar.set_ticks(list(TICKS), labels=[phrase(text) for text in TICKS.values()])
    bar.set_label(
        phrase("probability of the token, given all tokens before it (the colour is linear in bits)")
    )
    caption(
        figure, phrase("Framed: no probability, since no token comes before. · is a space, \\n a line break.")
    )
    if len(boxes) < len(view.source.tokens):
        more = len(view.source.tokens) - len(boxes)
        caption(figure, phrase("{more:,} more tokens are not drawn; the table has them all.", more=more))


def _token(axes: Axes, scale: ScalarMappable, view: SurpriseView, box: Placed, theme: Theme) -> None:
    left, top, wide, index = box
    bits = float(view.bits[index])
    known = bits == bits
    face = tuple(scale.to_rgba(np.array([bits]))[0]) if known else (0.0, 0.0, 0.0, 0.0)
    edge = "none" if known else theme.muted
    axes.add_patch(Rectangle((left, top + 2), wide, BOX, facecolor=face, edgecolor=edge, linewidth=0.8))
    red, green, blue = (round(255 * part) for part in face[:3])
    colour = readable_on((red, green, blue)) if known else theme.text
    shown = token_label(view.source.tokens[index], 60)
    centred(axes, (left + wide / 2, top + 2 + BOX / 2), shown, TEXT, colour)


def _flow(tokens: tuple[str, ...]) -> Iterator[Placed]:
    """Yield the box of every token, wrapped at the margin and at the text's own line breaks."""
    left = top = 0.0
    for index, token in enumerate(tokens):
        wide = width(token_label(token, 60), TEXT) + 3
        if left and left + wide > ROOM:
            left, top = 0.0, top + STEP
        if top >= MOST_LINES * STEP:
            return
        yield left, top, wide, index
        left += wide + GAP
        if "\n" in token:
            left, top = 0.0, top + STEP
