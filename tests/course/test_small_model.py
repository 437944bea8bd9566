"""The course gives sensible answers on the small real model, and says where that differs from GPT-2."""

from __future__ import annotations

import re

import pytest

import pophood
from pophood.course import Course, Lesson
from tests.course.walked import Walked, walk

PAGES = ("what-it-read", "generate", "embeddings", "top-ten", "statistics", "wrap-up")


@pytest.fixture(scope="module")
def walked_small(course: Course, small: pophood.LM) -> dict[str, Walked]:
    return walk(course, small, PAGES)


def test_the_capital_of_spain_is_madrid(walked_small: dict[str, Walked]) -> None:
    assert walked_small["generate"].verdict.answer == '" Madrid"'
    assert "Output: The capital of Spain is" in walked_small["generate"].printed
    assert '" Madrid"' in walked_small["top-ten"].shown
    assert 0.3 < float(walked_small["top-ten"].verdict.answer) < 0.5


def test_what_it_read_shows(walked_small: dict[str, Walked]) -> None:
    page = walked_small["what-it-read"]
    assert page.verdict.answer == '"she"', "it leans as its text leaned"
    chances = re.findall(r"^The (\w+) said that +she (0\.\d+) +he (0\.\d+)$", page.printed, re.MULTILINE)
    assert [job for job, _, _ in chances] == ["nurse", "teacher", "doctor", "engineer"]
    assert all(0.001 < float(she) + float(he) < 1 for _, she, he in chances)
    assert "the training text is another one" in page.said


def test_rows_of_like_words_are_alike(walked_small: dict[str, Walked]) -> None:
    page = walked_small["embeddings"]
    assert page.verdict.answer == "yes"
    cosines = {word: float(value) for word, value in re.findall(r"'( \w+)': (-?0\.\d+)", page.printed)}
    assert cosines[" Italy"] > cosines[" horse"] and cosines[" Madrid"] > cosines[" horse"]


def test_a_name_surprises_more_than_a_full_stop(walked_small: dict[str, Walked]) -> None:
    assert walked_small["wrap-up"].verdict.answer.strip('" ') in ("capital", "Spain", "Italy")


def test_its_own_figures_are_shown_beside_the_talks(walked_small: dict[str, Walked]) -> None:
    page = walked_small["statistics"]
    assert page.printed.splitlines()[:3] == [
        "Transformer blocks: 30",
        "Attention heads: 9",
        "Embedding size: 576",
    ]
    assert (
        '"Transformer blocks: 12"' in page.said
        and "the figures are this model's, not the talk's" in page.said
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pipeline", "positions enter inside attention instead"),
        ("positions", "turns pairs of numbers of each query and key by an angle"),
        ("before-the-blocks", "nothing is added"),
        ("layer-norm", "the norm is RMS norm"),
        ("attention", "several heads share one set of keys and values"),
        ("feed-forward", "silu(gate(x)) * up(x)"),
        ("tokens", "the vocabulary is another one"),
    ],
)
def test_what_differs_is_said_of_this_model_and_not_of_gpt2(
    course: Course, small: pophood.LM, gpt2_shaped: pophood.LM, name: str, words: str
) -> None:
    page = next(page for page in course.pages if page.name == name)

    def said(lm: pophood.LM) -> str:
        cells = [cell for section in page.sections.values() for cell in section]
        return " ".join(" ".join(cell.text.split()) for cell in Lesson(page, lm).applying(tuple(cells)))

    assert words in said(small)
    assert words not in said(gpt2_shaped)
