"""Each table has the phrases of the code, with their fields, and no other."""

from __future__ import annotations

import ast
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pophood import phrases
from pophood.course import languages as courses
from pophood.errors import BadInput
from pophood.phrases import later, phrase, speak, speaking, table_of
from tests.contracts.sources import product_files

Field = tuple[str | None, str | None, str | None]
COUNTING = ("look", "course", "model")  # packages whose nouns are said in every language
OTHERS = [language for language in phrases.languages() if language != phrases.USUAL]


def fields_of(text: str) -> set[Field]:
    """Return the fields of a phrase: name, conversion and format of each."""
    parsed = string.Formatter().parse(text)
    return {(name, conversion, form) for _, name, form, conversion in parsed if name is not None}


def phrases_in_code() -> set[str]:
    """Return every phrase that the product's Python can say."""
    python = [path for path in product_files() if path.suffix == ".py"]
    return {text for path in python for text in _phrases(path)}


def _phrases(path: Path) -> Iterator[str]:
    """Yield the texts given to `phrase` and `later`, and the nouns of `count`."""
    tree, counting = ast.parse(path.read_text("utf-8")), not {*path.parts}.isdisjoint(COUNTING)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        if node.func.id in ("phrase", "later"):
            yield from _texts(node.args[0])
        elif counting and node.func.id == "count" and len(node.args) > 1:
            nouns = [text for argument in node.args[1:] for text in _texts(argument)]
            yield from nouns if len(nouns) > 1 else (noun + end for noun in nouns for end in ("", "s"))
        elif node.func.id == "map" and isinstance(node.args[0], ast.Name) and node.args[0].id == "later":
            yield from _texts(node.args[1])


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts of an argument: one, those of a tuple, or those of the two sides of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple):
        for item in node.elts:
            yield from _texts(item)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def test_the_course_and_the_phrases_are_in_the_same_languages() -> None:
    assert set(courses()) == set(phrases.languages())


@pytest.mark.parametrize("language", OTHERS)
def test_a_table_has_the_phrases_of_the_code(language: str) -> None:
    table, said = table_of(language), phrases_in_code()
    assert sorted(said - set(table)) == [], "not translated"
    assert sorted(set(table) - said) == [], "said nowhere"


@pytest.mark.parametrize("language", OTHERS)
def test_the_fields_and_formats_are_those_of_the_english(language: str) -> None:
    differ = [one for one, words in table_of(language).items() if fields_of(one) != fields_of(words)]
    assert differ == []


def test_a_language_is_spoken_in_a_block_and_by_a_process() -> None:
    english = "written: {file}"
    with speaking("es"):
        assert phrase(english, file="a{b}") == "escrito: a{b}"
        with speaking("en"):
            assert phrase(english, file="a") == "written: a"
        heard: list[str] = []
        other = threading.Thread(target=lambda: heard.append(phrase(english, file="a")))
        other.start()
        other.join()
    assert heard == ["written: a"], "a block speaks for its own thread"
    try:
        speak("es")
        assert phrase(later("file")) == "archivo" and phrase("no table has this") == "no table has this"
    finally:
        speak("en")
    with pytest.raises(BadInput, match="the languages are: en, es"), speaking("xx"):
        pass
