"""Each table has the phrases of the code, with their fields, and no other."""

from __future__ import annotations

import ast
import re
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pophood import course, phrases
from pophood.course import languages as courses
from pophood.errors import BadInput
from pophood.phrases import columns_of, later, phrase, speak, speaking, table_of
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


def untranslated(path: Path) -> list[str]:
    """Return the texts of several words in a file, without docstrings and what `phrase` and `later` get."""
    nodes = [*ast.walk(ast.parse(path.read_text("utf-8")))]
    spared = [node for node in nodes if _is_docstring(node) or _speaks(node)]
    passed = {id(inner) for node in spared for inner in ast.walk(node)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in passed]
    several = re.compile(r"^(?!bold ).*[a-z]{2,} [a-z]{2,}")  # "bold green" is a style
    return [text for text in texts if isinstance(text, str) and several.search(text)]


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _speaks(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("phrase", "later")


@pytest.mark.parametrize("name", ["display", "heat", "page_view", "render", "tables", "view_screen"])
def test_a_terminal_shows_views_in_every_language(name: str) -> None:
    path = next(path for path in product_files() if path.parts[-3:] == ("cli", "terminal", f"{name}.py"))
    assert untranslated(path) == []


@pytest.mark.parametrize("language", OTHERS)
def test_tables_of_the_course_have_headings_in_every_language(language: str) -> None:
    folder = Path(course.__file__).parent / "en"
    pages = "".join(path.read_text("utf-8") for path in folder.glob("*.md"))
    listed = re.findall(r"Table\(\((\"[^)]*)\)|^columns = (.*)$", pages, re.MULTILINE)
    names = {name for pair in listed for name in re.findall(r'"(\w+)"', "".join(pair))}
    assert len(names) > 10
    assert sorted(names - set(columns_of(language))) == []


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
