"""The picture of `attention`: one head large, all heads of its block, and the labels of all heads."""

from __future__ import annotations

import itertools
import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from pophood.look.figures import parts
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import Theme, readable_on, rgb
from pophood.look.math.heads import LABELS, LETTERS, NO_LABEL
from pophood.look.views.attention import AttentionView
from pophood.phrases import phrase

ACROSS = 6  # small maps in a row
CELL = 0.19  # inches of a cell in the grid of labels
GAP = 0.15  # inches between the parts
MOST_BARS = 40  # tokens; for a longer text, no weights are drawn as bars
MOST_EXACT = 60  # tokens; with more, cells may be smaller than a pixel


def draw(view: AttentionView, figure: Figure, theme: Theme) -> None:
    """Draw the large head on top, all heads of its block below it, then the grid of labels."""
    config, tokens = view.config, len(view.source.tokens)
    down = math.ceil(config.n_head / ACROSS)
    large = min(max(0.24 * tokens, 3.0), 7.5)
    bars = 3.4 if tokens <= MOST_BARS else 0.0
    width = max(9.0, large + 2.2 + bars, CELL * config.n_layer + 3.0)
    heights = (large + 0.9, GAP, (width / ACROSS + 0.1) * down, GAP, CELL * config.n_head + 0.8)
    parts.size(figure, width, sum(heights))
    grid = GridSpec(5, 1, figure=figure, height_ratios=heights)
    top = grid[0].subgridspec(1, 2 if bars else 1, width_ratios=(width - bars, bars) if bars else None)
    _large(figure.add_subplot(top[0]), view, theme)
    if bars:
        _last_row(figure.add_subplot(top[1]), view, theme)
    small = grid[2].subgridspec(down, ACROSS)
    for head in range(config.n_head):
        _small(figure.add_subplot(small[divmod(head, ACROSS)]), view, head, theme)
    _labels(figure.add_subplot(grid[4]), view, theme)


def _large(axes: Axes, view: AttentionView, theme: Theme) -> None:
    labels = [token_label(token) for token in view.source.tokens]
    scale = phrase("attention weight\n(blank: masked, exactly 0)")
    pattern = view.visible(view.head)
    image = parts.heatmap(
        axes, pattern, theme, rows=labels, columns=labels, scale=scale, ends=(0.0, 1.0), numbers=True
    )
    _keep_thin_lines(image, len(labels))
    axes.set_aspect("auto")  # a fixed one would leave labels out of the layout; the sizes make it square
    axes.set_title(phrase("head {head}: each row sums to 1", head=view.head))
    axes.set(ylabel=phrase("query: the token that attends"), xlabel=phrase("key: the token attended to"))


def _last_row(axes: Axes, view: AttentionView, theme: Theme) -> None:
    weights = view.pattern[view.head, -1]
    labels = [token_label(token) for token in view.source.tokens]
    parts.bars(axes, labels, weights, theme, numbers=[f"{weight:.2f}" for weight in weights])
    axes.set(xlim=(0.0, 1.3 * max(float(weights.max()), 1e-3)), xticks=[])
    axes.spines["bottom"].set_visible(False)
    axes.set_title(phrase("the last row: weights of the last token"))


def _keep_thin_lines(image: AxesImage, tokens: int) -> None:
    """Blend cells that are smaller than pixels, instead of leaving some out."""
    if tokens > MOST_EXACT:
        image.set(interpolation="auto", interpolation_stage="rgba")


def _small(axes: Axes, view: AttentionView, head: int, theme: Theme) -> None:
    image = parts.heatmap(axes, view.visible(head), theme, ends=(0.0, 1.0))
    _keep_thin_lines(image, len(view.source.tokens))
    best = view.probe.best(view.layer, head)
    score = "" if best is None else f" {view.probe.values[view.layer, head, best]:.2f}"
    axes.set_title(f"{head}: {phrase(view.probe.label(view.layer, head))}{score}", fontsize=parts.SMALL)
    if head == view.head:
        axes.spines[:].set(color=theme.accents[1], linewidth=2.0)


def _labels(axes: Axes, view: AttentionView, theme: Theme) -> None:
    layers, heads, _ = view.probe.values.shape
    for layer, head in itertools.product(range(layers), range(heads)):
        best = view.probe.best(layer, head)
        colour = theme.surface if best is None else theme.accents[best]
        axes.add_patch(Rectangle((layer - 0.46, head - 0.46), 0.92, 0.92, facecolor=colour, linewidth=0))
        if best is not None:
            parts.centred(axes, (layer, head), LETTERS[best], parts.SMALL, readable_on(rgb(colour)))
    shown = (view.layer - 0.5, view.head - 0.5)
    axes.add_patch(Rectangle(shown, 1, 1, facecolor="none", edgecolor=theme.text, linewidth=1.5))
    axes.set(
        xlim=(-0.6, layers - 0.4), ylim=(heads - 0.4, -0.6), xlabel=phrase("block"), ylabel=phrase("head")
    )
    axes.set_xticks(range(layers), [str(layer) for layer in range(layers)])
    axes.set_yticks(range(heads), [str(head) for head in range(heads)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(phrase("all heads of the model: the measured role of each on a repeated random text"))
    counts = view.probe.counts()
    key = [
        Patch(color=theme.accents[i], label=f"{letter}  {phrase(name)}: {counts[name]}")
        for i, (letter, name) in enumerate(zip(LETTERS, LABELS, strict=True))
    ]
    none = Patch(
        facecolor=theme.surface, edgecolor=theme.line, label=f"{phrase(NO_LABEL)}: {counts[NO_LABEL]}"
    )
    parts.legend(axes, [*key, none])
