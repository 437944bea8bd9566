"""Files of answers are kept, refused and marked; plans add up; the teacher's edition has every answer."""

from __future__ import annotations

import csv
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.course import Course, check
from pophood.course.classroom import LearnerFile, edition_html, marks
from pophood.course.classroom.plans import PLANS, plan
from pophood.errors import BadFile, BadInput, NotFound
from tests.tiny import tiny_folder

TOKENS = {"guess": "5", "judged": "right", "answer": "5"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of two blocks with GPT-2's vocabulary."""
    return tiny_folder(tmp_path_factory.mktemp("classroom") / "model", "gpt2")


def content(**changes: Any) -> dict[str, Any]:
    """Return what a file of answers holds."""
    return {
        "format": "pophood answers 1",
        "language": "en",
        "model": "gpt2",
        "pages": {"tokens": TOKENS},
    } | changes


def written(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_answers_are_kept_and_read_again(course: Course, tmp_path: Path) -> None:
    page = next(page for page in course.pages if page.name == "tokens")
    file = LearnerFile.opened(tmp_path / "me.json", course)
    assert file.first_open(course) == 1 and file.guess(page) is None
    file.keep(page, "", check(None, 5))
    assert not file.path.exists(), "no guess, nothing to keep"
    file.keep(page, " 5\x1b\n", check("5", 5))
    again = LearnerFile.opened(file.path, course)
    assert again.guess(page) == "5" and again.pages["tokens"].judged == "right"
    for other in course.pages:
        again.keep(other, "x" * 999, check("x", "y"))
    assert LearnerFile.read(written(tmp_path / "named.json", content(name="Ana"))).name == "Ana"
    assert again.first_open(course) == 1, "all answered: from the start"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "is empty"),
        ("[]", "holds list"),
        ("{", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": 1, "format": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        (" " * 300_000 + "{}", "wanted at most 262,144"),
        (
            json.dumps(content(format="pophood answers 2")),
            "its format is 'pophood answers 2', wanted 'pophood answers 1'",
        ),
        (json.dumps(content(command="rm")), "has the field 'command'"),
        (json.dumps(content(language="../en")), "is in the language '../en'"),
        (json.dumps(content(model="a\x1b[2J")), "model is"),
        (json.dumps(content(model=7)), "model is 7"),
        (json.dumps(content(name="a\nb")), "name is"),
        (json.dumps(content(pages=[])), "its `pages` is [], wanted an object"),
        (json.dumps(content(pages={"../x": TOKENS})), "has the page '../x'"),
        (json.dumps(content(pages={"tokens": 5})), "wanted an object with guess, judged, answer"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "guess": 5}})), "guess is 5"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "guess": "9" * 201}})), "at most 200"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "guess": "1e9999"}})), "wanted a number"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "guess": " "}})), "wanted a number"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "guess": "\ud800"}})), "guess is"),
        (json.dumps(content(pages={"tokens": {**TOKENS, "judged": "best"}})), "judged is 'best'"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_a_strange_file_is_refused_in_one_line(value: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        LearnerFile.read(written(tmp_path / "me.json", value))
    message = str(caught.value)
    assert words in message and "me.json" in message
    assert "\n" not in message and message.isprintable() and len(message) < 400


def test_what_is_no_file_is_refused(course: Course, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BadFile, match="a pipe"):
        LearnerFile.read(tmp_path / "pipe.json")
    with pytest.raises(NotFound):
        LearnerFile.read(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(BadFile, match="not UTF-8"):
        LearnerFile.read(tmp_path / "latin.json")


def test_marks_are_computed_by_the_model(folder: Path, tmp_path: Path) -> None:
    lm = pophood.load(folder)
    forged = {"tokens": {**TOKENS, "guess": "7"}, "map": {**TOKENS, "guess": "13"}}
    written(tmp_path / "ana.json", content(model=lm.name, name="=HYPERLINK(1)", pages=forged))
    written(tmp_path / "ben.json", content(pages={"tokens": TOKENS}))
    written(tmp_path / "bad.json", "{")
    written(tmp_path / "notes.txt", "no answers")
    marking = marks(tmp_path, lm)
    rows = list(csv.DictReader(marking.csv.splitlines()))
    assert [row["file"] for row in rows] == ["ana.json", "ben.json"]
    assert list(rows[0]) == ["file", "name", "model", "answered", "right", "close", "wrong", "tokens", "map"]
    assert rows[0]["name"] == "'=HYPERLINK(1)" and rows[0]["tokens"] == "wrong", "not what the file says"
    assert (rows[0]["answered"], rows[0]["right"], rows[0]["wrong"]) == ("2", "1", "1")
    assert (rows[1]["tokens"], rows[1]["map"]) == ("right", "")
    assert len(marking.refused) == 1 and "bad.json" in marking.refused[0]
    assert marking.remarks == [
        f"ben.json: answered with gpt2, marked with {lm.name}: some numbers may differ"
    ]


def test_a_folder_without_answers_is_refused(folder: Path, tmp_path: Path) -> None:
    lm = pophood.load(folder)
    with pytest.raises(BadInput, match=re.escape("has 0 .json files; wanted 1 to 1,000")):
        marks(tmp_path, lm)
    with pytest.raises(NotFound):
        marks(tmp_path / "none", lm)


def test_plans_add_up_and_follow_the_course(course: Course) -> None:
    assert set(PLANS) == {45, 90, 180}
    for minutes in PLANS:
        items = plan(course, minutes)
        numbers = [item.page.number for item in items if item.page]
        assert items[-1].at + items[-1].minutes == minutes == sum(item.minutes for item in items)
        assert numbers == sorted(set(numbers)) and min(item.minutes for item in items) >= 3
    assert [item.page.number for item in plan(course, 180) if item.page] == [*range(1, len(course.pages) + 1)]


def test_the_teachers_edition_has_answers_notes_and_plans(course: Course, folder: Path) -> None:
    pages = tuple(page for page in course.pages if page.number in {2, 10})
    text = edition_html(replace(course, pages=pages), pophood.load(folder), plans=())
    assert "The answer: 5." in text and "The answer: 1,557,611,200." in text
    assert "Then try names from the room" in text and "Common words are one piece each" in text
    assert "default-src 'none'" in text and not re.search(r"\sstyle=|src=\"http|<link", text)
