"""The course through the routes: pages without their answers, cells run on the model, guesses judged."""

from __future__ import annotations

from pathlib import Path

import pophood
from pophood.course import Lesson, load_course
from tests.studio.server import StudioCommand


def test_the_pages_are_all_there_without_their_answers(running: StudioCommand) -> None:
    course = load_course("en")
    listed = running.get("/course")
    assert [page["number"] for page in listed["pages"]] == [page.number for page in course.pages]
    for page in course.pages:
        told = running.get(f"/course/{page.number}")
        assert told["title"] == page.title
        assert running.get(f"/course/{page.name}?language=xx") == told
        kinds = {cell["kind"] for cells in told["sections"].values() for cell in cells}
        assert "guess" in kinds and "check" not in kinds
    assert running.ask("/course/0").status == running.ask("/course/x").status == 404
    assert running.get("/course?language=xx")["language"] == "en"


def test_cells_run_and_guesses_are_judged_on_the_model(running: StudioCommand, tiny_model: Path) -> None:
    lm = pophood.load(tiny_model, precision="f32")
    page = load_course("en").pages[1]
    lesson = Lesson(page, lm)
    sent = running.get(f"/course/{page.number}")["sections"]["run"]
    for cell in (cell for cell in sent if cell["kind"] == "run"):
        asked = {"section": "run", "index": cell["index"]}
        got = running.post(f"/course/{page.number}/run", asked)
        assert got["printed"] == lesson.run(page.sections["run"][cell["index"]]).printed
    told = running.post(f"/course/{page.number}/check", {"guess": ""})
    verdict = lesson.check("")
    assert (told["judged"], told["answer"]) == (verdict.judged, verdict.answer)


def test_only_cells_of_the_course_are_run(running: StudioCommand) -> None:
    for asked in (
        {"section": "check", "index": 0},
        {"section": "run", "index": 99},
        {"section": "x", "index": 0},
    ):
        assert running.ask("/course/1/run", asked).status == 400
    assert running.ask("/course/1/run", {"section": "run", "index": 0, "code": "1"}).status == 400
    needs = next(page for page in load_course("en").pages if page.needs)
    refused = running.ask(f"/course/{needs.number}/check", {"guess": "1"})
    assert (refused.status, "pophood talk" in refused.json["error"]["message"]) == (400, True)
