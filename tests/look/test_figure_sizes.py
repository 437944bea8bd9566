"""Sizes in pictures: bars and cells no larger than their words need, and names of rows without tick marks."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

import pophood
from pophood import look
from pophood.look import figures
from tests.look.pictures import TEXTS, picture_model, view_of

TALLEST_BAR, WIDEST_CELL, TALLEST_CELL = 0.9, 1.2, 0.7  # inches, of a short text
FEW = 12  # rows that can all be named


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return picture_model(tmp_path_factory)


def row_height(axes: Axes, figure: Figure) -> float:
    """Inches from a row to the next one."""
    low, high = axes.get_ylim()
    return float(axes.get_window_extent().height / figure.dpi / abs(high - low))


def has_bars(axes: Axes) -> bool:
    """Return whether it shows horizontal bars."""
    return any(isinstance(one, BarContainer) and one.orientation == "horizontal" for one in axes.containers)


@pytest.mark.parametrize("name", look.VIEWS)
def test_bars_and_cells_are_no_larger_than_their_words_need(lm: pophood.LM, name: str) -> None:
    figure = figures.draw(view_of(lm, name), "light")
    for axes in figure.axes:
        height = row_height(axes, figure)
        if has_bars(axes):
            assert height <= TALLEST_BAR, f"bars {height:.2f} inches high"
        for image in axes.images:
            rows, columns = image.get_size()
            across = axes.get_window_extent().width / figure.dpi / columns
            assert height <= TALLEST_CELL and across <= WIDEST_CELL, f"cells of {across:.2f} x {height:.2f}"
            if rows <= FEW:
                assert len(axes.get_yticks()) in (0, rows), "room for every row's name"
        if (has_bars(axes) or axes.images) and axes.get_yticks().size:
            marks = [tick.tick1line.get_markersize() for tick in axes.yaxis.get_major_ticks()]
            assert not any(marks), "rows have names, no tick marks"


def test_long_tokens_do_not_widen_the_cells_of_the_lens(lm: pophood.LM) -> None:
    view = view_of(lm, "lens", TEXTS["long tokens"])
    figure = figures.draw(view, "light")
    (heat,) = (axes for axes in figure.axes if axes.images)
    places = heat.images[0].get_size()[1]
    assert places >= 10 and heat.get_window_extent().width / figure.dpi / places <= 0.6


def test_the_diagram_is_drawn_in_points(lm: pophood.LM) -> None:
    """Its texts stand where their size in points leaves room for them, so its unit must be a point."""
    figure = figures.draw(view_of(lm, "architecture"), "light")
    (axes,) = figure.axes
    box, across = axes.get_window_extent(), axes.get_xlim()
    assert row_height(axes, figure) * 72 == pytest.approx(1, abs=0.05)
    assert box.width / figure.dpi / (across[1] - across[0]) * 72 == pytest.approx(1, abs=0.05)
