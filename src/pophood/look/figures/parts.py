"""The building blocks of pictures: heat maps, bars, points with labels, captions.

A view's `draw(view, figure, theme)` puts them on the axes of its figure. Whatever depends on the final layout
(overlapping labels, too many ticks) is left to `fit.py`, which runs at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator
from numpy.typing import ArrayLike

from pophood.look.figures import fit
from pophood.look.figures.text import printable
from pophood.look.figures.theme import SCALES, Theme, readable_on, rgb

NUMBER_GID = "number"  # marks the numbers in cells, which `fit` may remove
MOST_CELLS = 150  # of a map that shows its numbers
MARKS = "osD^vPX*<>"
BAR = 0.16  # inches across a colour bar
ROOM = 8.0  # most labels per inch
TITLE, LABEL, SMALL = 10.5, 8.5, 7.5  # points


def size(figure: Figure, width: float, height: float) -> None:
    """Set the size of the drawing in inches, at most 40 each way; title and notes add to it."""
    figure.set_size_inches(min(max(width, 3.0), 40.0), min(max(height, 1.5), 40.0))


def colour_map(name: str) -> Colormap:
    """Return one of `theme.SCALES` as a matplotlib colour map."""
    return LinearSegmentedColormap.from_list(name, list(SCALES[name]), N=256)


def heatmap(
    axes: Axes,
    values: ArrayLike,
    theme: Theme,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    scale: str = "",
    ends: tuple[float, float] | None = None,
    diverging: bool = False,
    numbers: bool = False,
) -> AxesImage:
    """Draw `values` [rows, columns] as cells, NaN and infinity blank; `scale` explains the colours.

    `ends` are the ends of the colours (default: those of the values). `numbers` writes the values into the
    cells of a small map. Without `scale` there is no colour bar: `colour_bar` draws one for several maps.
    Without `rows` or `columns` there are no labels.
    """
    shown = np.ma.masked_invalid(np.asarray(values, np.float64))
    low, high = ends or ((float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0))
    name = theme.diverging if diverging else theme.sequential
    tall, wide = shown.shape
    square = 0.5 <= tall / max(wide, 1) <= 2.0
    image = axes.imshow(
        shown,
        cmap=colour_map(name).with_extremes(bad=theme.background),
        vmin=low,
        vmax=high if high > low else low + 1.0,
        aspect="equal" if square else "auto",
        interpolation="nearest",
    )
    axes.xaxis.set_minor_locator(NullLocator())
    sizes = fit.figure_of(axes).get_size_inches()
    for axis, labels, inches in zip((axes.xaxis, axes.yaxis), (columns, rows), sizes, strict=True):
        step = -(-len(labels) // max(1, round(ROOM * inches))) or 1  # `fit` may thin the labels further
        axis.set_ticks(range(0, len(labels), step), [printable(label) for label in labels[::step]])
    axes.tick_params(length=0)
    axes.spines[:].set_color(theme.line)
    if numbers and shown.size <= MOST_CELLS:
        for (row, column), value in np.ndenumerate(shown.filled(np.nan)):
            if not np.isnan(value):
                write_in_cell(axes, image, (column, row), value, _number(value), SMALL, gid=NUMBER_GID)
    if scale:
        colour_bar(image, [axes], theme, scale)
    return image


def write_in_cell(
    axes: Axes, image: AxesImage, at: tuple[int, int], value: Any, text: str, size: float, **options: Any
) -> None:
    """Write `text` into the cell `at` (column, row) of a heat map, readable on the colour of `value`."""
    red, green, blue, _ = image.to_rgba(value, bytes=True)
    centred(axes, at, text, size, readable_on((int(red), int(green), int(blue))), **options)


def centred(axes: Axes, at: tuple[float, float], text: str, size: float, colour: str, **options: Any) -> None:
    """Write `text` with its centre at a point."""
    axes.text(*at, text, ha="center", va="center", fontsize=size, color=colour, **options)


def rounded_box(
    axes: Axes, corner: tuple[float, float], wide: float, high: float, radius: float, **options: Any
) -> None:
    """Draw a box with rounded corners, measured in data coordinates from its first corner."""
    style = f"round,pad=0,rounding_size={radius:g}"
    axes.add_patch(FancyBboxPatch(corner, wide, high, boxstyle=style, **options))


def write_beside(
    axes: Axes, at: tuple[float, float], text: str, colour: str, *, gap: float = 4, **options: Any
) -> None:
    """Write a number `gap` points to the right of a point, even if that is outside the axes."""
    axes.annotate(
        text,
        at,
        xytext=(gap, 0),
        textcoords="offset points",
        va="center",
        fontsize=LABEL,
        color=colour,
        annotation_clip=False,
        **options,
    )


def colour_bar(image: AxesImage, all_axes: Sequence[Axes], theme: Theme, scale: str) -> None:
    """Draw the colour bar of one or several heat maps beside them; `scale` explains the colours."""
    figure = fit.figure_of(all_axes[0])
    share = BAR / float(figure.get_size_inches()[0])
    bar = figure.colorbar(
        image, ax=list(all_axes), label=printable(scale), fraction=max(share, 0.02), pad=0.02
    )
    fit.later(bar.ax, lambda: fit.stretch_bar(bar.ax, all_axes, BAR))
    bar.outline.set_edgecolor(theme.line)
    bar.ax.tick_params(color=theme.line)


def bars(
    axes: Axes,
    labels: Sequence[str],
    values: ArrayLike,
    theme: Theme,
    *,
    numbers: Sequence[str] | None = None,
    accent: int = 0,
) -> None:
    """Draw horizontal bars, the first on top, each with a label to its left and a number to its right."""
    lengths = np.asarray(values, np.float64)
    places = range(len(lengths))
    axes.barh(places, lengths, height=0.72, color=theme.accents[accent])
    axes.set_yticks(places, [printable(label) for label in labels])
    axes.set_ylim(len(lengths) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    if numbers is None:
        return
    axes.margins(x=0.18)  # room for the numbers
    for place, length, number in zip(places, lengths, numbers, strict=True):
        write_beside(axes, (max(length, 0.0), place), printable(number), theme.text)


def scatter(
    axes: Axes,
    points: Sequence[tuple[float, float, str, str]],
    theme: Theme,
    *,
    key: bool = True,
    marker_size: float = 36,
) -> None:
    """Draw (x, y, label, group) points; every group has a mark and a colour, and no two labels overlap.

    A label without room beside its point is placed further away, with a line to it. An empty label is left
    out. `key` adds a legend of the groups if there is more than one.
    """
    groups = list(dict.fromkeys(group for *_, group in points))
    for number, group in enumerate(groups):
        own = [(x, y) for x, y, _, name in points if name == group]
        axes.scatter(
            [x for x, _ in own],
            [y for _, y in own],
            s=marker_size,
            marker=MARKS[number % len(MARKS)],
            color=theme.accents[number % len(theme.accents)],
            edgecolors=theme.background,
            linewidths=0.6,
            label=printable(group) or " ",
            zorder=3,
        )
    axes.margins(0.12)
    named = [(x, y, printable(label)) for x, y, label, _ in points if label]
    fit.later(axes, lambda: fit.place_labels(axes, named, theme, LABEL))
    if key and len(groups) > 1:
        legend(axes)


def legend(axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Draw the legend to the right of the axes, where it covers nothing."""
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def mixed(colour: str, ground: str, share: float) -> str:
    """Return the colour of `share` of one colour on top of another.

    >>> mixed("#ffffff", "#000000", 0.5)
    '#808080'
    """
    parts = (round(a * share + b * (1 - share)) for a, b in zip(rgb(colour), rgb(ground), strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def rim(axes: Axes, theme: Theme) -> None:
    """Give every text inside the axes an outline in the background colour, so that it stays legible."""
    for text in axes.texts:
        text.set_path_effects([withStroke(linewidth=2.5, foreground=theme.background)])


def caption(figure: Figure, text: str) -> None:
    """Add a line of small text below the picture; several calls add several lines."""
    fit.add_caption(figure, printable(text))


def _number(value: float) -> str:
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text
