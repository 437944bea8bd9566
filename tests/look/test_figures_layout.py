"""Layout of pictures: equal widths at every resolution, colour bars, round ticks; labels that tell enough."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import pophood
from pophood import look
from pophood.look import figures
from pophood.look.figures import fit, parts
from pophood.look.figures.drawing import style
from pophood.look.figures.text import token_label
from pophood.look.figures.theme import LIGHT
from pophood.look.source import quoted
from tests.look.pictures import TEXTS, drawn_texts, faults, picture_model

RESOLUTIONS = (72, 100, 160, 200)  # of SVG, of the layout, of PNG, of the cells in SVG


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return picture_model(tmp_path_factory)


def test_a_word_has_the_same_width_at_every_resolution(lm: pophood.LM) -> None:
    """Else what was laid out at one is clipped at another."""
    figure = figures.draw(look.parameters(lm))
    widths = []
    with style(LIGHT):
        for dots in RESOLUTIONS:
            figure.set_dpi(dots)
            texts = drawn_texts(figure)
            widths.append([Text.get_window_extent(text).width / dots for text in texts])
    assert np.ptp(widths, axis=0).max() < 0.02, "inches"


@pytest.mark.parametrize("shape", [(30, 5), (5, 30), (60, 60)])
def test_a_colour_bar_is_as_high_as_its_map_and_slender(shape: tuple[int, int]) -> None:
    with style(LIGHT):
        figure = Figure(figsize=(shape[1] / 6 + 2, shape[0] / 6 + 1), layout="constrained")
        axes = figure.subplots()
        values = np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)
        parts.heatmap(axes, values, LIGHT, rows=[], columns=[], scale="share")
        axes.set_aspect("auto")
        fit.finish(figure)
        figure.draw_without_rendering()
        (bar,) = (one for one in figure.axes if one is not axes)
        place, beside = bar.get_position(), axes.get_position()
        assert (place.y0, place.y1) == pytest.approx((beside.y0, beside.y1), abs=0.01)
        assert 0.05 < place.width * figure.get_size_inches()[0] <= parts.BAR + 0.01
        assert place.x0 >= beside.x1


def test_numbers_on_an_axis_that_would_touch_are_fewer() -> None:
    with style(LIGHT):
        figure = Figure(figsize=(3, 2), layout="constrained")
        for axes in figure.subplots(1, 3):
            axes.plot([0, 0.00125], [0, 1])
        fit.finish(figure)
    assert faults(figure) == []


def test_a_part_of_a_word_names_the_word(lm: pophood.LM) -> None:
    view = look.embeddings(lm, ["uncharacteristically", "dog", "cat"])
    labels = {text.get_text() for text in drawn_texts(figures.draw(view))}
    parts_of_it = [piece.text for piece in view.pieces if piece.word == "uncharacteristically"]
    assert len(parts_of_it) > 1 and "dog" in labels
    assert {f"{token_label(text)} (of uncharacteristically)" for text in parts_of_it} <= labels


@pytest.mark.parametrize("space", ["\xa0", "\u3000", "\u2028"])
def test_a_space_that_is_none_of_the_usual_ones_is_no_empty_label(space: str) -> None:
    assert token_label(f" a{space}") == "·a" + space.encode("unicode_escape").decode("ascii")


def test_a_title_is_one_line_whatever_the_token() -> None:
    assert [quoted(text) for text in (" Madrid", "\n", "\xa0", 'a"')] == [
        '" Madrid"',
        '"\\n"',
        '"\\xa0"',
        '"a""',
    ]


@pytest.mark.parametrize("token", [198, 220])  # a line break, a space
def test_views_of_a_line_break_have_titles_of_one_line(lm: pophood.LM, token: int) -> None:
    view = look.lens(lm, "a", token=lm.detokenize([token]))
    assert "\n" not in view.title + view.alt


def test_the_text_in_a_title_has_whole_characters(lm: pophood.LM) -> None:
    text = TEXTS["Chinese and Japanese"]
    assert text in look.lens(lm, text).title
