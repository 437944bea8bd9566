"""Every view in Spanish: no word of English is left in what it says, and its numbers are the same."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.text import Text

import pophood
from pophood import look
from pophood.look.blocks import Coloured, Heat, Points, Prose
from pophood.look.figures import draw
from pophood.look.view import View
from pophood.phrases import columns_of, speaking, table_of
from pophood.table import Table

# Names of tensors, settings and models, and words of the texts that are looked at.
NAMES = {
    "attn",
    "run",
    "top",
    "large",
    "small",
    "mine",
    "of",
    "is",
    "at",
    "or",
    "an",
    "cat",
    "chased",
    "mouse",
}
TOKENS = ("word", "first", "second", "name")  # columns with texts of the model
PLAIN = ("kind", "labels", "rows", "columns", "tokens", "cells", "text", "label", "packed")  # of figures
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in look.VIEWS),
    ("tokens", {"languages": True}),
    ("attention", {"layer": 0, "head": 1}),
    ("next", {"temperature": 0.5}),
    ("norm", {"which": "final"}),
    ("scale", {"add": ["Mine,1.5B,2025"]}),
]
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|«[^»]*»")
WORD = re.compile(r"[a-zà-ÿ]{2,}")
NUMBER = re.compile(r"\d[\d,.]*\d|\d")


def words(text: str) -> set[str]:
    return set(WORD.findall(re.sub(r"\{[^}]*\}", " ", text).lower()))


def english_words() -> set[str]:
    """Return the words that the phrases have in English alone."""
    pairs = [*table_of("es").items(), *columns_of("es").items()]
    english, spanish = ({word for pair in pairs for word in words(pair[at])} for at in (0, 1))
    return english - spanish - NAMES


def look_at(lm: pophood.LM, name: str, options: dict[str, Any]) -> View:
    view: View = getattr(look, name)(lm, **options)
    return view


def said(view: View) -> Iterator[str]:
    """Yield the texts of a view, without the texts of the model."""
    yield from (view.title, view.alt, *view.notes)
    for table in view.tables().values():
        yield from _of_table(table)
    for block in view.picture():
        yield block.title
        if isinstance(block, Table):
            yield from _of_table(block)
        elif isinstance(block, Heat | Coloured):
            yield block.scale
        elif isinstance(block, Points):
            yield from (block.x_label, block.y_label, *(group for *_, group in block.points))
        elif isinstance(block, Prose):
            yield from block.sentences
        elif view.name != "tokens":  # whose lines are of tokens
            yield from (block.text, block.ascii)
    for figure in look.figures_data(view):
        yield from _of_figure(figure)


def _of_table(table: Table) -> Iterator[str]:
    yield table.title
    shown = [at for at, name in enumerate(table.columns) if not name.endswith("_text")]
    shown = [at for at in shown if not of_tokens(table.columns[at])]
    yield from (table.headings[at] for at in shown)
    yield from (str(row[at]) for row in table.rows for at in shown if isinstance(row[at], str))


def of_tokens(column: str) -> bool:
    """Return True for a column with texts of the model, or which is headed by a token."""
    return column in TOKENS or "'" in column or column.startswith("promotes")


def _of_figure(value: object, key: str = "") -> Iterator[str]:
    """Yield the texts of a figure's data, except for labels of tokens and names for programs."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in (
                "kind",
                "labels",
                "rows",
                "columns",
                "tokens",
                "cells",
                "text",
                "label",
                "packed",
            ):
                yield from _of_figure(item, name)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _of_figure(item, key)
    elif isinstance(value, str) and key not in ("halves", "logarithmic"):
        yield value


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("model", ["small", "rotary"])
def test_a_view_says_nothing_in_english(
    model: str, name: str, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    lm, english = request.getfixturevalue(model), english_words()
    with speaking("es"):
        spanish = [text.replace(lm.name, "m") for text in said(look_at(lm, name, options))]
    plain = [text.replace(lm.name, "m") for text in said(look_at(lm, name, options))]
    left = {text: found for text in spanish if (found := words(QUOTED.sub("", text)) & english)}
    assert left == {}
    assert [Counter(NUMBER.findall(text)) for text in spanish] == [
        Counter(NUMBER.findall(text)) for text in plain
    ]


@pytest.mark.parametrize("name", look.VIEWS)
def test_a_picture_says_nothing_in_english(small: pophood.LM, name: str) -> None:
    english = english_words()
    with speaking("es"):
        view = look_at(small, name, {})
        figure = draw(replace(view, source=replace(view.source, model="m")))
    drawn: list[Any] = figure.findobj(Text)
    texts = {text.get_text() for text in drawn}
    own = {text for text in texts if text != "The" and not text.startswith("·") and "  " not in text}
    left = {text: found for text in own if (found := words(QUOTED.sub("", text)) & english)}
    assert left == {}
