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
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import ArrayLike

from pophood.look.figures import fit
from pophood.look.figures.text import printable, token_label
from pophood.look.figures.theme import SCALES, Theme, readable_on, rgb

__all__ = [
    "bars",
    "caption",
    "colour_bar",
    "colour_map",
    "heatmap",
    "legend",
    "log_counts",
    "mixed",
    "rim",
    "scatter",
    "size",
    "token_label",
]

NUMBER_GID = "number"  # marks the numbers in cells, which `fit` may remove
MOST_CELLS = 150  # of a map that shows its numbers by default
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
    rows: Sequence[str],
    columns: Sequence[str],
    scale: str,
    low: float | None = None,
    high: float | None = None,
    diverging: bool = False,
    numbers: bool | None = None,
    bar: bool = True,
    decimals: int = 2,
) -> AxesImage:
    """Draw `values` [rows, columns] as cells, NaN and infinity blank; `scale` explains the colours.

    `low` and `high` are the ends of the colours (default: those of the values, symmetric if diverging).
    `numbers` writes the values into the cells (default: for small maps). `bar=False` omits the colour bar,
    which `colour_bar` draws for several maps with one scale. Empty `rows` or `columns` mean no labels.
    """
    shown = np.ma.masked_invalid(np.asarray(values, np.float64))
    low, high = _ends(shown, low, high, diverging)
    name = theme.diverging if diverging else theme.sequential
    tall, wide = shown.shape
    square = 0.5 <= tall / max(wide, 1) <= 2.0
    image = axes.imshow(
        shown,
        cmap=colour_map(name).with_extremes(bad=theme.background),
        vmin=low,
        vmax=high,
        aspect="equal" if square else "auto",
        interpolation="nearest",
    )
    axes.xaxis.set_minor_locator(NullLocator())
    figure = axes.get_figure(root=True)
    assert figure is not None
    across, down = (max(1, round(ROOM * inches)) for inches in figure.get_size_inches())
    below, beside = (
        -(-len(columns) // across),
        -(-len(rows) // down),
    )  # label steps; `fit` may thin them further
    axes.set_yticks(range(len(rows))[:: beside or 1], [printable(row) for row in rows[:: beside or 1]])
    axes.set_xticks(range(len(columns))[:: below or 1], [printable(name) for name in columns[:: below or 1]])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    if numbers or (numbers is None and 0 < shown.size <= MOST_CELLS):
        _write_numbers(axes, image, shown, decimals)
    if bar:
        colour_bar(image, [axes], theme, scale)
    return image


def colour_bar(image: AxesImage, all_axes: Sequence[Axes], theme: Theme, scale: str) -> None:
    """Draw the colour bar of one or several heat maps beside them; `scale` explains the colours."""
    figure = all_axes[0].get_figure(root=True)
    assert figure is not None
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
        axes.annotate(
            printable(number),
            (max(length, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=LABEL,
            color=theme.text,
            annotation_clip=False,
        )


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
        legend(axes, theme)


def legend(axes: Axes, theme: Theme, handles: Sequence[Artist] | None = None, **options: Any) -> None:
    """Draw the legend to the right of the axes, where it covers nothing."""
    explicit: dict[str, Any] = {} if handles is None else {"handles": list(handles)}
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=LABEL,
        labelcolor=theme.text,
        **explicit,
        **options,
    )


def log_counts(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic, with ticks such as 100M and 1B."""
    if which == "y":
        axes.set_yscale("log")
    else:
        axes.set_xscale("log")
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axis.set_minor_locator(NullLocator())


def short_count(value: float) -> str:
    """Format a large number in four characters.

    >>> short_count(124_439_808), short_count(1.5e9), short_count(2e12), short_count(512)
    ('124M', '1.5B', '2T', '512')
    """
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


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


def caption(figure: Figure, text: str, theme: Theme) -> None:
    """Add a line of small text below the picture; several calls add several lines."""
    fit.add_caption(figure, printable(text), theme.muted, SMALL)


def _ends(
    values: np.ma.MaskedArray[Any, Any], low: float | None, high: float | None, diverging: bool
) -> tuple[float, float]:
    if values.count() == 0:
        return (low if low is not None else 0.0), (high if high is not None else 1.0)
    if diverging and low is None and high is None:
        reach = float(np.abs(values).max()) or 1.0
        return -reach, reach
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    return low, high if high > low else low + 1.0


def _write_numbers(axes: Axes, image: AxesImage, values: np.ma.MaskedArray[Any, Any], decimals: int) -> None:
    for (row, column), value in np.ndenumerate(values.filled(np.nan)):
        if not np.isnan(value):
            red, green, blue, _ = image.to_rgba(value, bytes=True)
            axes.text(
                column,
                row,
                _number(value, decimals),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=readable_on((int(red), int(green), int(blue))),
                gid=NUMBER_GID,
            )


def _number(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text
