"""The picture of `architecture`: the steps as boxes, one block in detail, the residual stream on its left."""

from __future__ import annotations

from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from pophood.look.boxes import Box
from pophood.look.figures.parts import LABEL, SMALL, mixed, rounded_box, size
from pophood.look.figures.text import printable
from pophood.look.figures.theme import Theme
from pophood.look.views.architecture import ArchitectureView
from pophood.phrases import later, phrase

WIDE = 540.0  # points, like all lengths here
ROW, GAP, PAD = 17.0, 24.0, 5.0
LEFT, RIGHT = 52.0, 524.0  # of a stack of boxes
STREAM = 30.0  # x of the residual stream
COLUMNS = (62.0, 196.0, 362.0, 514.0)  # left edges of title, weights, output; right edge of parameters
ACCENTS = {later("embedding"): 0, later("attention"): 1, later("feed-forward"): 2, later("output"): 3}
FRAME = (14.0, 532.0)  # left and right edge of the block's frame
ADDED_LATER = later("its dX is added below, with that of the feed-forward")
ARROW = {"arrowstyle": "-|>", "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0}


def draw(view: ArchitectureView, figure: Figure, theme: Theme) -> None:
    """Draw from the top down; the height follows from what was drawn."""
    stacks = {stack: list(boxes) for stack, boxes in groupby(view.boxes, key=lambda box: box.stack)}
    axes = figure.add_subplot()
    axes.set_axis_off()
    _heading(axes, theme)
    top = _stack(axes, stacks["embedding"], GAP, FRAME[0], theme)
    words = phrase("the stream: (T, {features})", features=view.config.n_embd)
    axes.text(LEFT, top + 12, words, fontsize=LABEL, va="center", color=theme.muted)
    start, top = top, top + GAP
    words = printable(view.block_line)
    axes.text(LEFT, top + 13, words, fontsize=LABEL, fontweight="bold", va="center")
    frame, top = top, top + 27
    for stack, addition in view.sums.items():
        bottom = _stack(axes, stacks[stack], top, LEFT, theme)
        _around(axes, top, bottom, addition, theme)
        top = bottom + 29
    style = {"facecolor": "none", "edgecolor": theme.muted, "linewidth": 1.0, "linestyle": (0, (4, 3))}
    rounded_box(axes, (FRAME[0], frame), FRAME[1] - FRAME[0], top - frame, 7, **style)
    _arrow(axes, (STREAM, start), (STREAM, top + 17), theme)
    tall = _stack(axes, stacks["output"], top + 17, FRAME[0], theme) + 4
    for text in axes.texts:
        text.set_in_layout(False)  # they need no room from the layout
    axes.set(xlim=(0, WIDE), ylim=(tall, 0))
    size(figure, (WIDE + 8) / 72, (tall + 18) / 72)


def _heading(axes: Axes, theme: Theme) -> None:
    words = (phrase("step"), phrase("weights"), phrase("output shape"), phrase("parameters"))
    for x, text in zip(COLUMNS, words, strict=True):
        align = "right" if x == COLUMNS[-1] else "left"
        axes.text(x, 12, text, fontsize=SMALL, ha=align, va="center", color=theme.muted)


def _stack(axes: Axes, boxes: list[Box], top: float, left: float, theme: Theme) -> float:
    """Draw several steps as one box, one line each; return its lower edge."""
    accent = theme.accents[ACCENTS[boxes[0].stack]]
    tall = ROW * len(boxes) + 2 * PAD
    face = mixed(accent, theme.background, 0.16)
    rounded_box(axes, (left, top), RIGHT - left, tall, 5, facecolor=face, edgecolor=accent, linewidth=1.2)
    for number, box in enumerate(boxes):
        middle = top + PAD + ROW * (number + 0.5)
        learned = box.parameters > 0
        for x, text in zip(COLUMNS, (box.title, box.weights, box.output), strict=False):
            weight = "bold" if learned and text == box.title else "normal"
            axes.text(x, middle, text, fontsize=LABEL, va="center", fontweight=weight)
        numbers = f"{box.parameters:,}" if learned else "–"
        axes.text(COLUMNS[-1], middle, numbers, fontsize=LABEL, va="center", ha="right")
        if number:
            edge = middle - ROW / 2
            axes.plot([COLUMNS[0] - 6, RIGHT - 4], [edge, edge], color=theme.line, linewidth=0.5)
    return top + tall


def _around(axes: Axes, top: float, bottom: float, addition: str, theme: Theme) -> None:
    """Draw the residual stream past a stack: an arrow into it at the top, and the addition below it.

    Without an addition, a line leads on to the next stack, below which both results are added.
    """
    plus, out = bottom + 13, LEFT + 14
    _arrow(axes, (STREAM, top + 13), (LEFT, top + 13), theme)
    if not addition:
        axes.text(LEFT + 24, plus, phrase(ADDED_LATER), fontsize=LABEL, va="center", color=theme.muted)
        axes.plot([out, out], [bottom, plus + 4], color=theme.text, linewidth=1.0)
        return
    axes.plot([out, out], [bottom, plus], color=theme.text, linewidth=1.0)
    _arrow(axes, (out, plus), (STREAM + 7, plus), theme)
    axes.add_patch(Circle((STREAM, plus), 7, facecolor=theme.background, edgecolor=theme.text, zorder=3))
    axes.plot([STREAM - 4, STREAM + 4], [plus, plus], color=theme.text, linewidth=1.2, zorder=4)
    axes.plot([STREAM, STREAM], [plus - 4, plus + 4], color=theme.text, linewidth=1.2, zorder=4)
    axes.text(LEFT + 24, plus, addition, fontsize=LABEL, va="center", color=theme.muted)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], theme: Theme) -> None:
    axes.annotate("", end, start, arrowprops=ARROW | {"color": theme.text})
