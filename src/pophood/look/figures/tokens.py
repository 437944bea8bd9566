"""The picture of `tokens`: every token in a coloured box with its id, in lines."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pophood.look.figures.parts import LABEL, caption, centred, mixed, rounded_box
from pophood.look.figures.text import printable, token_label, width
from pophood.look.figures.theme import Theme
from pophood.look.views.tokens import Cut, TokensView
from pophood.phrases import phrase
from pophood.table import count

WIDE = 7.5  # inches
ROOM = 72 * WIDE - 12  # points for boxes
BOX, GAP, STEP = 25.0, 3.0, 31.0  # height of a box, between boxes, from line to line, in points
HEADING = 18.0
PADS = 20.0  # kept free by the layout around axes, title and notes
TEXT, ID = 9.0, 7.0  # points
MOST = 900  # tokens of one text

Placed = tuple[float, float, float, int]  # left, top, width, index of the token


def draw(view: TokensView, figure: Figure, theme: Theme) -> None:
    """Draw the texts one below the other."""
    placed = [_flow(cut) for cut in view.cuts]
    headings = HEADING if len(view.cuts) > 1 else 0.0
    tall = sum(headings + boxes[-1][1] + STEP for boxes in placed)
    figure.set_size_inches(WIDE, min((tall + PADS) / 72, 40.0))
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, ROOM), ylim=(tall, 0))
    top = 0.0
    for cut, boxes in zip(view.cuts, placed, strict=True):
        if headings:
            axes.text(0, top + 6, printable(_heading(cut)), fontsize=LABEL, va="center", color=theme.text)
        _boxes(axes, cut, boxes, top + headings, theme)
        top += headings + boxes[-1][1] + STEP
        if len(cut.ids) > MOST:
            caption(
                figure,
                phrase(
                    "{more:,} more tokens of text {label} are not drawn.",
                    more=len(cut.ids) - MOST,
                    label=phrase(cut.label),
                ),
            )
    caption(figure, phrase("Colours only separate the tokens; below each token is its id; · is a space."))


def _flow(cut: Cut) -> list[Placed]:
    """Return the box of every token, measured from the top of its text."""
    boxes: list[Placed] = []
    left = top = 0.0
    for index, (id_, token) in enumerate(zip(cut.ids[:MOST], cut.tokens, strict=False)):
        wide = max(width(token_label(token), TEXT), width(str(id_), ID)) + 9
        if left and left + wide > ROOM:
            left, top = 0.0, top + STEP
        boxes.append((left, top, wide, index))
        left += wide + GAP
    return boxes


def _boxes(axes: Axes, cut: Cut, boxes: list[Placed], top: float, theme: Theme) -> None:
    for left, down, wide, index in boxes:
        accent = theme.accents[index % len(theme.accents)]
        style = {"facecolor": mixed(accent, theme.background, 0.25), "edgecolor": accent, "linewidth": 0.8}
        rounded_box(axes, (left + 1, top + down + 1), wide - 2, BOX - 2, 3, **style)
        middle = left + wide / 2
        centred(axes, (middle, top + down + 9), token_label(cut.tokens[index]), TEXT, theme.text)
        centred(axes, (middle, top + down + 19), str(cut.ids[index]), ID, theme.text)


def _heading(cut: Cut) -> str:
    words = "" if cut.per_word is None else phrase(", {per_word:.2f} per word", per_word=cut.per_word)
    return phrase(
        "{label}: {tokens}, {per_character:.2f} per character{words}",
        label=phrase(cut.label),
        tokens=count(cut.count, "token"),
        per_character=cut.per_character,
        words=words,
    )
