"""Pictures: nothing overlaps at any length, the bytes are reproducible, and a description comes with them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

import pophood
from pophood import look
from pophood.errors import BadInput, NotFound
from pophood.look import figures
from pophood.look.figures import fit, parts, render
from pophood.look.figures.drawing import style
from pophood.look.figures.text import printable, token_label, width, wrap
from pophood.look.figures.theme import LIGHT, THEMES, Theme, colour_at, contrast, luminance, readable_on, rgb
from pophood.look.source import ViewSource
from pophood.look.view import View
from pophood.table import Table
from tests.look.pictures import (
    LENGTHS,
    TEXTS,
    drawn_texts,
    faults,
    picture_model,
    text_of_kind,
    text_of_length,
    view_of,
)

# Pictures that grow with the text; the tests of pages draw the others.
CHOSEN = [
    ("tokens", 200),
    ("residual", 30),
    ("attention", 30),
    ("surprise", 200),
    ("lens", 30),
    ("norm", 200),
]
QUICK = {("Chinese and Japanese", "light"), ("right to left", "dark")}  # what every run of the tests draws
LABELLED = ("tokens", "surprise", "attention")  # views that label every token of a short text


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return picture_model(tmp_path_factory)


@dataclass(frozen=True)
class Small(View):
    """A minimal view."""

    probability: float = 0.5
    name: ClassVar[str] = "small"

    @property
    def title(self) -> str:
        return "A title & <more>"

    @property
    def alt(self) -> str:
        return "One bar, a half\x00."

    @property
    def notes(self) -> tuple[str, ...]:
        return ("A note.",)

    def tables(self) -> dict[str, Table]:
        return {"numbers": Table(("token_text", "value"), ((" a", self.probability), ("b", float("nan"))))}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {"value": np.array([self.probability])}


SMALL = Small(ViewSource("m", "f32", "q8", "a b", (1, 2), ("a", " b")))


@pytest.fixture
def painter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that draws a `Small`."""

    def draw(view: Small, figure: Figure, theme: Theme) -> None:
        parts.size(figure, 4, 2)
        parts.bars(figure.subplots(), ["$a$ 日"], [view.probability], theme, numbers=["0.5"])

    module = ModuleType("pophood.look.figures.small")
    monkeypatch.setattr(module, "draw", draw, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(("name", "tokens"), CHOSEN)
def test_long_texts_are_legible(lm: pophood.LM, name: str, tokens: int) -> None:
    assert faults(figures.draw(view_of(lm, name, text_of_length(lm, tokens)), "dark")) == []


@pytest.mark.parametrize(
    ("kind", "theme"),
    [
        pytest.param(kind, theme, marks=[] if (kind, theme) in QUICK else pytest.mark.full)
        for kind in TEXTS
        for theme in ("light", "dark")
    ],
)
@pytest.mark.parametrize("name", look.VIEWS)
def test_no_label_is_clipped_overlapping_or_missing(lm: pophood.LM, name: str, kind: str, theme: str) -> None:
    """Every run draws two kinds of text, the full run all six in both themes."""
    view = view_of(lm, name, text_of_kind(lm, kind))
    figure = figures.draw(view, theme)
    assert faults(figure) == []
    if kind != "200 tokens" and name in LABELLED:
        words = "\n".join(text.get_text() for text in drawn_texts(figure))
        for token in view.source.tokens:
            label = token_label(token)
            assert label in words or label[:3] in words, f"{label!r} is missing"


@pytest.mark.full
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("name", look.VIEWS)
def test_every_view_is_legible_at_every_length(lm: pophood.LM, name: str, tokens: int, theme: str) -> None:
    assert faults(figures.draw(view_of(lm, name, text_of_length(lm, tokens)), theme)) == []


def test_faults_are_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one", fontsize=9)
    figure.text(0.5, 0.5, "two", fontsize=9)
    figure.text(0.0, 0.9, "three", fontsize=5, ha="right")
    assert faults(figure) == ["'three' is small", "'one' and 'two' overlap", "'three' reaches over the edge"]


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_crowded_points_do_not_cover_each_other(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = [(*random.normal(size=2).tolist(), f"word {i}", "ab"[i % 2]) for i in range(40)]
    with style(LIGHT):
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        parts.scatter(axes, points, LIGHT)
        fit.finish(figure)
        assert faults(figure) == []
    assert {text.get_text() for text in axes.texts} == {label for *_, label, _ in points}


def test_a_label_may_touch_the_frame_and_not_cross_it() -> None:
    dot, half = (0.0, 0.0), (10.0, 5.0)
    beside = (16.0, 0.0, 6.0)  # to the right of its dot, six points away
    box = Bbox.from_extents(6, -5, 26, 5)
    assert fit._free_place(dot, half, [], box, 1.0) == beside
    for moved in ((0.1, 0, 0, 0), (0, 0.1, 0, 0), (0, 0, -0.1, 0), (0, 0, 0, -0.1)):
        narrower = Bbox.from_extents(*(edge + by for edge, by in zip(box.extents, moved, strict=True)))
        assert fit._free_place(dot, half, [], narrower, 1.0) != beside


def test_a_picture_has_the_same_bytes_every_time_whatever_the_settings(painter: None) -> None:
    first = render.svg(SMALL, "light")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        assert render.svg(SMALL, "light") == first
        assert dict(matplotlib.rcParams) == before, "nobody else's pictures change"
    assert render.svg(SMALL, "dark") != first


def test_the_last_digits_of_a_layout_do_not_reach_an_svg(painter: None) -> None:
    figure = render.draw(SMALL, "light")
    first = render.svg_of(figure, SMALL, "light")
    assert b"url(#clip0)" in first
    for axes in figure.axes:
        box = axes.get_position()
        axes.set_position((box.x0 + 1e-12, box.y0, box.width, box.height))
    assert render.svg_of(figure, SMALL, "light") == first


def test_svg_and_png_say_what_they_show(painter: None, tmp_path: Path) -> None:
    SMALL.save(tmp_path / "a.svg")
    SMALL.save(tmp_path / "a.png", "dark")
    root = ElementTree.fromstring((tmp_path / "a.svg").read_bytes())
    space = "{http://www.w3.org/2000/svg}"
    assert [child.tag for child in root[:2]] == [f"{space}title", f"{space}desc"]
    assert [child.text for child in root[:2]] == ["A title & <more>", "One bar, a half\ufffd."]
    assert root.get("role") == "img"
    with Image.open(tmp_path / "a.png") as image:
        assert (image.info["Title"], image.info["Description"]) == (SMALL.title, "One bar, a half\ufffd.")
        assert image.convert("RGB").getpixel((0, 0)) == rgb(THEMES["dark"].background)
        assert image.width == 4 * render.PIXELS_PER_INCH


def test_data_is_written_whole(tmp_path: Path) -> None:
    for kind in ("csv", "json", "npz"):
        SMALL.save(tmp_path / f"a.{kind.upper()}")
    assert (tmp_path / "a.CSV").read_text() == SMALL.to_csv()
    facts = json.loads((tmp_path / "a.JSON").read_text(), parse_constant=pytest.fail)
    assert facts["tables"]["numbers"][1] == {"token_text": "b", "value": None}, "NaN is no JSON"
    assert facts["command"] == "pophood look small 'a b' -m m"
    with np.load(tmp_path / "a.NPZ") as arrays:
        assert arrays["value"] == [0.5]


def test_names_that_will_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        BadInput, match=r"'\.pdf' names no format: end the name in \.svg, \.png, \.html, \.csv"
    ):
        SMALL.save(tmp_path / "a.pdf")
    with pytest.raises(BadInput, match="no ending"):
        SMALL.save(tmp_path / "a")
    with pytest.raises(BadInput, match="does not exist: make it"):
        SMALL.save(tmp_path / "none" / "a.csv")
    with pytest.raises(BadInput, match="no theme 'blue': choose light or dark"):
        figures.draw(SMALL, "blue")
    monkeypatch.setattr(Small, "arrays", lambda self: {})
    with pytest.raises(BadInput, match=r"no arrays: save it as \.csv"):
        SMALL.save(tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_one_line_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for kind in ("svg", "png", "html"):
        with pytest.raises(NotFound, match=r"pip install 'pophood\[plot\]'"):
            SMALL.save(tmp_path / f"a.{kind}")
    SMALL.save(tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    shown = SMALL._repr_html_()
    assert "<table>" in shown and "pophood[plot]" in shown and "<img" not in shown
    assert "A title &amp; &lt;more&gt;" in shown


def test_a_notebook_shows_the_picture_with_its_words(painter: None) -> None:
    shown = SMALL._repr_html_()
    assert "src='data:image/svg+xml;base64," in shown
    assert "alt='One bar, a half" in shown and "<p>A note.</p>" in shown and "&lt;more&gt;" in shown


def test_tokens_as_labels() -> None:
    assert token_label(" Spain") == "·Spain"
    assert token_label("a\n\t\x1b\u202e") == "a\\n\\t\\x1b\\u202e"
    assert token_label("\u0378é") == "\\u0378é", "what the font lacks is no box"
    assert token_label("x" * 50) == "x" * 23 + "…"
    assert printable("a b\n🙂") == "a b\n\\U0001f642"


def test_lines_break_where_the_room_ends() -> None:
    lines = wrap("the quick brown fox jumps over the lazy dog", 80, 9).split("\n")
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert len(lines) > 1 and all(width(line, 9) <= 80 for line in lines)
    assert width("xx", 10) == pytest.approx(2 * width("x", 10), rel=0.1)


def test_colours_can_be_told_apart_and_words_read() -> None:
    steps = [luminance(colour_at("viridis", i / 20)) for i in range(21)]
    assert steps == sorted(steps), "brighter is more, also in grey"
    theirs = matplotlib.colormaps["viridis"]
    ours = np.array([colour_at("viridis", i / 20) for i in range(21)]) / 255
    assert np.abs(ours - np.array([theirs(i / 20)[:3] for i in range(21)])).max() < 0.06
    for theme in THEMES.values():
        background = rgb(theme.background)
        assert contrast(rgb(theme.text), background) >= 7
        assert contrast(rgb(theme.muted), background) >= 4.5
        assert all(contrast(rgb(accent), background) >= 2.2 for accent in theme.accents)
        assert all(contrast(rgb(accent), background) >= 3 for accent in theme.accents[:3])
        low, middle, high = (luminance(colour_at(theme.diverging, share)) for share in (0, 0.5, 1))
        assert (middle - low) * (middle - high) > 0, "both ends leave the middle in brightness too"


def test_words_on_a_colour_have_the_greater_contrast() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5000, 3))
    shares = colours / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    bright = linear @ [0.2126, 0.7152, 0.0722]  # WCAG 2.2, by its definition
    black = (bright + 0.05) / 0.05 >= 1.05 / (bright + 0.05)
    for colour, light, wanted in zip(colours.tolist(), bright, black, strict=True):
        red, green, blue = colour
        assert luminance((red, green, blue)) == pytest.approx(light)
        assert readable_on((red, green, blue)) == ("#000000" if wanted else "#ffffff"), colour


def test_negative_numbers_of_an_axis_have_a_minus_and_no_hyphen() -> None:
    with style(LIGHT):
        figure = Figure(layout="constrained")
        figure.subplots().plot([-1, 0, 1], [-5.5, 0, 5.5])
        fit.finish(figure)
        words = [text.get_text() for text in drawn_texts(figure)]
    assert "\N{MINUS SIGN}4" in words and not any(word.startswith("-") for word in words)


def test_numbers_that_do_not_fit_their_cells_are_left_out() -> None:
    for columns, expected in ((4, 16), (12, 0)):
        with style(LIGHT):
            figure = Figure(figsize=(3, 3), layout="constrained")
            values: Any = np.full((4, columns), 1234.5)
            values[0, 0] = np.nan
            parts.heatmap(figure.subplots(), values, LIGHT, rows=(), columns=(), scale="x", numbers=True)
            fit.finish(figure)
        numbers = [text for text in figure.findobj(Text) if text.get_gid() == parts.NUMBER_GID]
        assert len(numbers) == max(expected - 1, 0), "nothing in the blank cell"
