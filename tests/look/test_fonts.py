"""Characters that DejaVu Sans lacks are drawn with a system font if there is one, otherwise as escapes."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from pophood.look.figures import text
from pophood.look.figures.drawing import style
from pophood.look.figures.theme import LIGHT


@pytest.fixture
def without_cjk_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without any of the fonts."""
    monkeypatch.setattr(text, "CJK_FONTS", ())
    text.cjk_font.cache_clear()
    text.width.cache_clear()
    yield
    text.cjk_font.cache_clear()
    text.width.cache_clear()


def test_chinese_and_japanese_are_drawn_where_a_font_is_installed() -> None:
    if text.cjk_font() is None:
        pytest.skip(
            "needs a font with Chinese and Japanese (Debian package fonts-noto-cjk; make system-deps)"
        )
    assert text.token_label(" 日本") == "·日本" and text.printable("東京 Tokyo") == "東京 Tokyo"
    assert text.families() == [text.FONT, text.cjk_font()]
    with style(LIGHT):
        figure = Figure()
        drawn = figure.text(0, 0, "日本", fontsize=10)
        shown = drawn.get_window_extent().width * 72 / figure.dpi
    assert text.width("日本", 10) == pytest.approx(shown, rel=0.1)
    assert text.width("a日", 10) == pytest.approx(text.width("a", 10) + text.width("日", 10), rel=1e-6)


@pytest.mark.usefixtures("without_cjk_font")
def test_without_such_a_font_they_are_escapes() -> None:
    assert text.cjk_font() is None and text.families() == [text.FONT]
    assert text.token_label("日é") == "\\u65e5é", "what the font lacks is no box"
    assert text.printable("日") == "\\u65e5"


@pytest.mark.usefixtures("without_cjk_font")
def test_a_font_is_found_that_was_installed_after_matplotlib_made_its_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fonts = SimpleNamespace(ttflist=[SimpleNamespace(name=text.FONT)], added=[])

    def add(path: str) -> None:
        fonts.added.append(path)
        fonts.ttflist.append(SimpleNamespace(name="Noto Sans CJK JP"))

    fonts.addfont = add
    places = ["/fonts/Mono-Regular.ttf", "/fonts/NotoSansCJK-Regular.ttc", "/fonts/Serif.otf"]
    monkeypatch.setattr(text, "CJK_FONTS", ("Noto Sans CJK JP",))
    monkeypatch.setattr(text, "fontManager", fonts)
    monkeypatch.setattr(text, "findSystemFonts", lambda: places)
    assert text.cjk_font() == "Noto Sans CJK JP"
    assert fonts.added == [places[1]], "no other font is read"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("abc", "abc"),
        ("日", "日"),
        ("\u05d9\u05d5", f"{text.LTR}\u05d9\u05d5"),
        ("\\xD7\u05d9", f"{text.LTR}\\xD7{text.LTR}\u05d9"),
        ('"\u0639\u0627" in 2', f'{text.LTR}"{text.LTR}\u0639\u0627"{text.LTR} in 2'),
        ("\u00b7\u05d4", f"{text.LTR}\u00b7{text.LTR}\u05d4"),
    ],
)
def test_lines_read_from_the_left_and_words_keep_their_own_direction(typed: str, shown: str) -> None:
    assert text.left_to_right(typed) == shown == text.printable(typed)
    assert text.printable(shown) == shown, "what is printable already stays as it is"
    assert text.width(text.left_to_right(typed), 9) == text.width(typed, 9), "the mark has no width"
