"""Decisions that need the final layout: labels beside points, ticks, numbers in cells, captions.

`drawing.draw_view` calls `finish(figure)` once; until then, drawing functions register work with `later`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator
from matplotlib.transforms import Bbox

from pophood.look.figures.text import wrap
from pophood.look.figures.theme import Theme

PAD = 6 / 72  # inches around everything
WORDS = "words"  # marks title and captions
MARGIN = 9.0  # points left and right of title and caption
GAP = 1.5  # points between two texts
_LATER: WeakKeyDictionary[Figure, list[Callable[[], None]]] = WeakKeyDictionary()
_CAPTIONS: WeakKeyDictionary[Figure, list[str]] = WeakKeyDictionary()


def later(axes: Axes, work: Callable[[], None]) -> None:
    """Run `work` once the layout of the axes' figure is final."""
    _LATER.setdefault(figure_of(axes), []).append(work)


def add_caption(figure: Figure, text: str) -> None:
    """Add a line of text below the picture."""
    _CAPTIONS.setdefault(figure, []).append(text)


def figure_of(artist: Axes | Text) -> Figure:
    """Return the figure that an artist belongs to."""
    figure = artist.get_figure(root=True)
    assert figure is not None
    return figure


def points_to_pixels(artist: Axes | Text) -> float:
    """Return the number of pixels per point in an artist's figure."""
    return float(figure_of(artist).dpi) / 72


def frame(figure: Figure, title: str, theme: Theme, size: float, small: float) -> None:
    """Write title and captions in two font sizes, and increase the figure's height to make room for them."""
    width, height = figure.get_size_inches()
    room = 72 * width - 2 * MARGIN
    left = MARGIN / (72 * width)
    heading = wrap(title, room, size, bold=True)
    style: dict[str, Any] = {"x": left, "ha": "left", "gid": WORDS}
    figure.suptitle(heading, fontsize=size, fontweight="bold", color=theme.text, **style)
    extra = 72 * PAD + 1.25 * size * (heading.count("\n") + 1) + 8
    if figure in _CAPTIONS:
        words = "\n".join(wrap(line, room, small) for line in _CAPTIONS[figure])
        figure.supxlabel(words, fontsize=small, color=theme.muted, linespacing=1.3, **style)
        extra += 1.35 * small * (words.count("\n") + 1) + 8
    figure.set_size_inches(width, height + extra / 72)


@contextmanager
def wordless(figure: Figure) -> Iterator[Bbox]:
    """Hide title and captions, and yield the rest of the figure as a box in inches."""
    words = [text for text in figure.texts if text.get_gid() == WORDS]
    width, height = (float(inches) for inches in figure.get_size_inches())
    spans = sorted((box.y0 / figure.dpi, box.y1 / figure.dpi) for box in map(Text.get_window_extent, words))
    top = spans[-1][0] + PAD / 2 if spans else height
    bottom = spans[0][1] - PAD / 2 if len(spans) > 1 else 0.0
    for text in words:
        text.set_visible(False)
    yield Bbox([[0.0, bottom], [width, top]])
    for text in words:
        text.set_visible(True)


def finish(figure: Figure) -> None:
    """Lay out the figure, then run the registered work."""
    figure.draw_without_rendering()
    for _ in range(2):  # rotated labels take up room, so that others may need thinning
        changed = [thin(axis) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
        if not any(changed):
            break
        figure.draw_without_rendering()
    _keep_inside(figure)
    figure.set_layout_engine("none")  # nothing moves from here on
    for axes in figure.axes:
        _drop_wide_numbers(axes)
    for work in _LATER.pop(figure, []):
        work()


def _keep_inside(figure: Figure) -> None:
    """Lay out again in a smaller area if something crosses the edge, as colour bars beside grids do."""
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    over = [max(0.0, reach) for reach in (-box.x0, -box.y0, box.x1 - width, box.y1 - height)]
    engine = figure.get_layout_engine()
    if max(over) < 0.01 or not isinstance(engine, ConstrainedLayoutEngine):
        return
    left, bottom, right, top = (reach + (PAD if reach else 0.0) for reach in over)
    rect = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    engine.set(rect=rect)
    figure.draw_without_rendering()


def stretch_bar(bar: Axes, beside: Sequence[Axes], across: float) -> None:
    """Make a colour bar as high as the axes that it explains, and at most `across` inches wide.

    Otherwise matplotlib keeps its proportions: fat beside a large map, and half as high as a narrow one.
    """
    boxes = [axes.get_position() for axes in beside]
    low, high = min(box.y0 for box in boxes), max(box.y1 for box in boxes)
    place = bar.get_position()
    wide = min(place.width, across / float(figure_of(bar).get_size_inches()[0]))
    bar.set_aspect("auto")
    bar.set_box_aspect(None)
    bar.set_position((place.x0, low, wide, high - low))


def thin(axis: Axis) -> bool:
    """Rotate an axis' labels, then thin them out until none touch; return whether anything changed."""
    if not isinstance(axis.get_major_locator(), FixedLocator):
        return _fewer(axis)
    ticks = axis.get_major_ticks()
    labels = [tick.label1 if tick.label1.get_visible() else tick.label2 for tick in ticks]
    if len(labels) < 2 or not _touching(labels, axis):
        return False
    longest = max(len(label.get_text()) for label in labels)
    if isinstance(axis, XAxis) and not labels[0].get_rotation() and longest > 3:
        axis.set_tick_params(rotation=90)
        for label in labels:
            label.set_rotation(90)
    if _touching(labels, axis):
        places, words = list(axis.get_majorticklocs()), [label.get_text() for label in labels]
        steps = range(2, len(labels))
        step = next((k for k in steps if not _touching(labels[::k], axis)), len(labels))
        axis.set_ticks(places[::step], words[::step])
    return True


def _fewer(axis: Axis) -> bool:
    """Choose fewer ticks while those of matplotlib touch; return whether anything changed."""
    changed = False
    if axis.axes.axison and isinstance(axis.get_major_locator(), MaxNLocator):
        for bins in (4, 3, 2, 1):
            if not _touching(axis.get_majorticklabels(), axis):
                break
            axis.set_major_locator(MaxNLocator(bins))
            changed = True
    return changed


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]], theme: Theme, size: float) -> None:
    """Write every label beside its point so that none covers another label, a mark, or the frame.

    Greedy: the most crowded points choose first, among 16 directions at growing distance; a distant label
    gets a line to its point.
    """
    dots = [tuple(map(float, axes.transData.transform((x, y)))) for x, y, _ in points]
    scale = points_to_pixels(axes)
    inside = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in dots]
    crowd = [sum(math.dist(a, b) < 60 * scale for b in dots) for a in dots]
    for at in sorted(range(len(points)), key=lambda i: (-crowd[i], i)):
        x, y, label = points[at]
        note = axes.annotate(
            label,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=theme.text,
            zorder=4,
        )
        note.set_in_layout(False)
        extent = Text.get_window_extent(note)
        half = (extent.width / 2 + GAP * scale, extent.height / 2 + GAP * scale)
        dx, dy, distance = _free_place(dots[at], half, taken, inside, scale)
        note.set_position((dx / scale, dy / scale))
        centre = (dots[at][0] + dx, dots[at][1] + dy)
        taken.append(Bbox.from_bounds(centre[0] - half[0], centre[1] - half[1], 2 * half[0], 2 * half[1]))
        if distance > 14:
            _lead(axes, dots[at], taken[-1], theme)


def _free_place(
    dot: tuple[float, ...], half: tuple[float, float], taken: list[Bbox], inside: Bbox, scale: float
) -> tuple[float, float, float]:
    """Return the nearest free offset (pixels) for a box of this half size, and its distance (points)."""
    best = (math.inf, 0.0, 0.0, 0.0)
    for distance in (6, 10, 15, 21, 28, 38, 50, 64, 80, 100, 125, 150, 180, 220):
        for turn in range(16):
            angle = math.tau * turn / 16
            dx = math.cos(angle) * (half[0] + distance * scale)
            dy = math.sin(angle) * (half[1] + distance * scale)
            box = Bbox.from_bounds(dot[0] + dx - half[0], dot[1] + dy - half[1], 2 * half[0], 2 * half[1])
            outside = not (
                inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            )
            covered = sum(_area(box, other) for other in taken) + (1e9 if outside else 0.0)
            if covered == 0:
                return dx, dy, float(distance)
            best = min(best, (covered, dx, dy, float(distance)))
    return best[1:]


def _lead(axes: Axes, dot: tuple[float, ...], box: Bbox, theme: Theme) -> None:
    """Draw a thin line from a point to the nearest edge of its label."""
    end = (min(max(dot[0], box.x0), box.x1), min(max(dot[1], box.y0), box.y1))
    back = axes.transData.inverted()
    (x0, y0), (x1, y1) = back.transform(dot), back.transform(end)
    axes.plot([x0, x1], [y0, y1], color=theme.muted, linewidth=0.6, zorder=2, scalex=False, scaley=False)


def _area(one: Bbox, other: Bbox) -> float:
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    return wide * high if wide > 0 and high > 0 else 0.0


def _touching(labels: Sequence[Text], axis: Axis) -> bool:
    """Return whether two neighbouring labels of one axis touch."""
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    spans = sorted((box.x0, box.x1) if isinstance(axis, XAxis) else (box.y0, box.y1) for box in boxes)
    gap = GAP * points_to_pixels(labels[0]) if labels else 0.0
    return any(before[1] + gap > after[0] for before, after in pairwise(spans))


def _drop_wide_numbers(axes: Axes) -> None:
    """Remove the numbers from cells if one of them does not fit."""
    numbers = [text for text in axes.texts if text.get_gid() == "number"]
    if not numbers:
        return
    cell = axes.transData.transform([(0, 0), (1, 1)])
    room = abs(cell[1] - cell[0])
    sizes = [number.get_window_extent() for number in numbers]
    if max(box.width for box in sizes) > 0.96 * room[0] or max(box.height for box in sizes) > 0.96 * room[1]:
        for number in numbers:
            number.remove()
