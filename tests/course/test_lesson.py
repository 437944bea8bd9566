"""Running cells: values, printed text, fresh variables, located failures, Ctrl-C."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pophood
from pophood.course import Course, Lesson
from pophood.course.lesson import CellFailed
from pophood.course.pages import KINDS, Cell
from pophood.train.run.scratch import SIZES
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    return pophood.load(tiny_folder(tmp_path_factory.mktemp("lesson") / "model", "llama"))


@pytest.fixture
def lesson(course: Course, lm: pophood.LM) -> Lesson:
    return Lesson(course.pages[0], lm)


def cell(text: str) -> Cell:
    return Cell("run", text, 7)


def test_a_cell_gives_what_it_prints_and_its_last_value(lesson: Lesson) -> None:
    output = lesson.run(cell("x = 2\nprint(x)\nx + 1"))
    assert (output.printed, output.value) == ("2\n", 3)
    assert lesson.run(cell("y = x")).value is None, "the value before is forgotten, the names are not"
    assert lesson.run(cell("lm.n_params")).value == lesson.lm.n_params


def test_every_lesson_starts_afresh(lesson: Lesson, course: Course) -> None:
    lesson.run(cell("x = 2"))
    with pytest.raises(CellFailed, match="name 'x' is not defined"):
        Lesson(course.pages[1], lesson.lm).run(cell("x"))


def test_a_failure_names_its_place_and_keeps_its_cause(lesson: Lesson) -> None:
    with pytest.raises(CellFailed, match=r"^en/01-why-locally\.md:7: BadInput: k must be") as caught:
        lesson.run(cell('lm.next("x", k=0)'))
    assert caught.value.__cause__ is not None


def test_ctrl_c_goes_through(lesson: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        lesson.run(cell("print('before')\nraise KeyboardInterrupt"))
    print("stdout is itself again")
    assert capsys.readouterr() == ("stdout is itself again\n", "")


def test_remarks_are_chosen_by_what_the_model_is(lesson: Lesson, course: Course) -> None:
    kinds = ["rotary", "rms-norm", "gated-mlp", "grouped-query", "other-family"]
    cells = tuple(Cell("differs", "x", 1, kind) for kind in KINDS)
    assert [one.label for one in lesson.applying(cells)] == kinds
    untied = replace(lesson.lm.config, tied_output=False)
    assert [kind for kind, holds in KINDS.items() if holds(untied)] == [*kinds[:4], "untied-output", kinds[4]]
    gpt2 = [kind for kind, holds in KINDS.items() if holds(SIZES["gpt2-small"])]
    assert gpt2 == ["learned-positions", "layer-norm", "plain-mlp"]
    assert Lesson(replace(course.pages[0], number=2), lesson.lm).applying(course.pages[0].lead)


def test_every_page_can_be_taken_alone_on_a_model_of_another_family(
    course: Course, lm: pophood.LM, tmp_path: Path
) -> None:
    """Every page runs on a Llama with an untied output matrix and a vocabulary of only 512 tokens."""
    untied = pophood.load(tiny_folder(tmp_path / "untied", "llama-untied"))
    for model in (lm, untied):
        for page in course.pages:
            lesson = Lesson(page, model)
            lesson.outputs()
            assert lesson.check(None).judged == "answer"
