"""Shared by the tests of pictures: a model, texts of three lengths, and a check of figures for faults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import pophood
from pophood import look
from pophood.look.figures.drawing import style
from pophood.look.figures.render import PIXELS_PER_INCH
from pophood.look.figures.text import SMALLEST
from pophood.look.figures.theme import LIGHT
from pophood.look.source import PROMPT
from pophood.look.view import View
from tests.tiny import tiny_folder

# Line breaks, dollar signs, characters without a glyph, quotes: everything that a label may contain.
LONG = (
    "The quick brown fox jumps over the lazy dog.\nIt costs $5 and $7 in 日本 today 🙂, said Dr. Müller to "
    'Антон — an extraordinarily uncharacteristic "statement"!\t'
) * 12
LENGTHS = (5, 30, 200)
# Kinds of text that a view may have to draw.
TEXTS = {
    "long tokens": "Donaudampfschifffahrtsgesellschaft pneumonoultramicroscopicsilicovolcanoconiosis",
    "Chinese and Japanese": "日本の首都は東京です。中国的首都是北京。",
    "emoji": "I 🙂 love 👩‍👩‍👧‍👦 Spain 🇪🇸!",
    "right to left": "עיר הבירה של ספרד היא מדריד. عاصمة إسبانيا",
    "one token": "a",
    "200 tokens": LONG,  # cut to that number of tokens
}


def picture_model(factory: pytest.TempPathFactory) -> pophood.LM:
    """Return a GPT-2 with random weights, three blocks of twelve heads and 256 positions; made once."""
    return _loaded(factory.getbasetemp() / "pictures")


@functools.cache
def _loaded(folder: Path) -> pophood.LM:
    wide: dict[str, Any] = {"n_head": 12, "n_kv_head": 12, "n_embd": 96, "head_dim": 8, "n_inner": 384}
    return pophood.load(tiny_folder(folder, "gpt2", n_layer=3, n_positions=256, **wide))


def text_of_length(lm: pophood.LM, tokens: int) -> str:
    """Return a text of about this many tokens; for five, the talk's."""
    return PROMPT if tokens == 5 else lm.detokenize(lm.tokenize(LONG)[:tokens])


def text_of_kind(lm: pophood.LM, kind: str) -> str:
    """Return one of TEXTS."""
    return text_of_length(lm, 200) if kind == "200 tokens" else TEXTS[kind]


def view_of(lm: pophood.LM, name: str, text: str = PROMPT) -> View:
    """Return the view of this name, of the text if it reads one."""
    function = getattr(look, name)
    given = {"text": text} if "text" in inspect.signature(function).parameters else {}
    view = function(lm, **given)
    assert isinstance(view, View)
    return view


def drawn_texts(figure: Figure) -> list[Text]:
    """Return every text that is drawn; ticks beyond the limits of an axis exist, but are not drawn."""
    found: list[Text] = []
    with _spy(found):
        figure.draw_without_rendering()
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def faults(figure: Figure) -> list[str]:
    """Return descriptions of texts that overlap, cross the edge, or are too small to read, as in a PNG."""
    before = figure.dpi
    with style(LIGHT):
        figure.set_dpi(PIXELS_PER_INCH)
        found = _faults(figure)
        figure.set_dpi(before)
    return found


def _faults(figure: Figure) -> list[str]:
    texts = drawn_texts(figure)
    assert texts
    wide, high = (float(inches * figure.dpi) for inches in figure.get_size_inches())
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in texts]
    found = [f"{text.get_text()!r} is small" for text in texts if float(text.get_fontsize()) < SMALLEST]
    for at, (words, box) in enumerate(boxes):
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > wide + 0.5 or box.y1 > high + 0.5:
            found.append(f"{words!r} reaches over the edge")
        for other_words, other in boxes[:at]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            up = min(box.y1, other.y1) - max(box.y0, other.y0)
            if across > 0.5 and up > 0.5:
                found.append(f"{other_words!r} and {words!r} overlap")
    return found


@contextmanager
def _spy(found: list[Text]) -> Iterator[None]:
    draw = Text.draw

    def noted(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        found.append(self)
        draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noted)
        yield
