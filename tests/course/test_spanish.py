"""The Spanish course is the English one: its cells, numbers and code; and it says nothing in English."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pophood
from pophood.course import Course, Lesson, Page, load_course
from pophood.course.pages import Cell
from tests.tiny import tiny_folder

ENGLISH = {
    "the",
    "of",
    "and",
    "is",
    "are",
    "was",
    "that",
    "this",
    "with",
    "from",
    "which",
    "what",
    "for",
    "it",
    "by",
    "each",
    "how",
    "have",
    "not",
    "than",
}
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|«[^»]*»|\{[^}]*\}|\([a-z, -]+\)")
NUMBERS = re.compile(r"\d[\d,.]*\d|\d")
CODE = ("run", "check")


@pytest.fixture(scope="module")
def spanish() -> Course:
    return load_course("es")


def cells(page: Page) -> Iterator[Cell]:
    yield from page.lead
    for section in page.sections.values():
        yield from section
    yield from page.solution


def numbers(page: Page) -> Counter[str]:
    return Counter(number for cell in cells(page) for number in NUMBERS.findall(cell.text))


def code(cell: Cell) -> str:
    """Return the code of a cell without its texts and comments."""
    tree = ast.parse(cell.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def test_pages_have_the_same_cells_numbers_and_code(course: Course, spanish: Course) -> None:
    assert [page.name for page in spanish.pages] == [page.name for page in course.pages]
    for english, page in zip(course.pages, spanish.pages, strict=True):
        front = [(one.talk, one.needs, one.continues) for one in (english, page)]
        assert front[0] == front[1], page.path
        shapes = [
            [(cell.kind, cell.label) for cell in cells(one) if cell.kind != "prose"]
            for one in (english, page)
        ]
        assert shapes[0] == shapes[1], page.path
        assert numbers(page) == numbers(english), page.path
        for one, other in zip(cells(english), cells(page), strict=True):
            if one.kind in ("sh", "formula"):
                assert other.text == one.text, page.path
            if one.kind in CODE:
                assert code(other) == code(one), page.path


def left_in_english(text: str) -> list[str]:
    """Return the lines with two or more of English's small words outside quotations."""
    lines = [QUOTED.sub("", line) for line in text.splitlines()]
    return [line for line in lines if len(ENGLISH & set(re.findall(r"[a-z]+", line.lower()))) > 1]


def test_pages_and_words_are_in_spanish(course: Course, spanish: Course) -> None:
    same = [key for key, word in spanish.words.items() if word == course.words[key] and " " in word]
    assert same == []
    texts = [*spanish.words.values(), *(cell.text for cell in spanish.contents)]
    for page in spanish.pages:
        texts += [
            page.title,
            *(
                " ".join(cell.text.split())
                for cell in cells(page)
                if cell.kind not in (*CODE, "say", "sh", "formula")
            ),
        ]
    assert [text for text in texts if left_in_english(text)] == []


def test_cells_say_spanish_sentences(spanish: Course, tmp_path: Path) -> None:
    lm = pophood.load(tiny_folder(tmp_path / "model", "gpt2"))
    for page in spanish.pages:
        if not page.needs:
            lesson = Lesson(page, lm)
            lesson.outputs()
            assert str(lesson.check(None)).startswith("La respuesta: ")
            assert not [text for text in map(lesson.say, page.cells("say")) if left_in_english(text)]
