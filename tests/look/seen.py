"""The visible texts of a figure: their boxes, and which of them overlap."""

from __future__ import annotations

from itertools import combinations

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

# Formulas, accents, scripts that the font lacks, an emoji, line breaks, an escape sequence.
ODD = "It costs $5 or $6: café 日本 \N{GRINNING FACE}\n\n\tx_1^2 \x1b[0m end. "
SMALLEST = 7.0  # points
SLACK = 1.0  # pixels by which boxes may touch


def texts(figure: Figure) -> dict[Text, Bbox]:
    """Return every text that is drawn, with its box in pixels."""
    figure.draw_without_rendering()
    unseen = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    unseen |= {tick.label1, tick.label2}
    return {
        text: text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen
    }


def faults(figure: Figure) -> list[str]:
    """Return texts that are too small, stick out of the figure, or overlap another one."""
    found, said = texts(figure), []
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in found.items():
        if float(text.get_fontsize()) < SMALLEST:
            said.append(f"{text.get_text()!r} is {text.get_fontsize()} points")
        if box.x0 < -SLACK or box.y0 < -SLACK or box.x1 > width + SLACK or box.y1 > height + SLACK:
            said.append(f"{text.get_text()!r} sticks out")
    for (one, first), (other, second) in combinations(found.items(), 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        if wide > SLACK and high > SLACK:
            said.append(f"{one.get_text()!r} and {other.get_text()!r} overlap")
    return said
