"""Marks of a class: every file of answers in a folder, judged again by one model.

The verdicts in the files are not trusted; the model computes the right answers, once for each page that
anybody answered.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pophood.course.answers import JUDGED, check
from pophood.course.classroom.answer_file import LearnerFile
from pophood.course.lesson import CellFailed, Lesson
from pophood.course.needs import Missing
from pophood.course.pages import Course, Page
from pophood.course.parse import load_course
from pophood.errors import BadFile, BadInput, NotFound
from pophood.model.lm import LM
from pophood.phrases import later, phrase

MOST_FILES = 1000
HEADINGS = tuple(map(later, ("file", "name", "model", "answered")))
UNMARKED = later("unmarked")  # the model could not compute the answer
Announce = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Marking:
    """The marks as CSV, and a line for each file that was refused or was answered with another model."""

    csv: str
    refused: list[str]
    remarks: list[str]


def marks(folder: Path, lm: LM, announce: Announce = lambda *_: None) -> Marking:
    """Mark every .json file of a folder. `announce` is called with the pages computed, and of how many.

    Raises NotFound without the folder, BadInput for one without files or with too many.
    """
    files, refused = [], []
    for path in answer_files(folder):
        try:
            files.append(LearnerFile.read(path))
        except (BadFile, NotFound) as error:
            refused.append(str(error))
    courses = {language: load_course(language) for language in sorted({file.language for file in files})}
    right = dict(_answers(lm, files, courses, announce))
    names = [page.name for page in load_course().pages if any(page.name in file.pages for file in files)]
    rows = [[*map(phrase, (*HEADINGS, *JUDGED)), *names]]
    rows += [_row(file, courses[file.language], right, names) for file in files]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([harmless(cell) for cell in row] for row in rows)
    remarks = [
        phrase(
            "{file}: answered with {given}, marked with {model}: some numbers may differ",
            file=file.path.name,
            given=file.model,
            model=lm.name,
        )
        for file in files
        if file.model != lm.name
    ]
    return Marking(out.getvalue(), refused, remarks)


def answer_files(folder: Path) -> list[Path]:
    """Return the .json files of a folder by name."""
    if not folder.is_dir():
        raise NotFound(phrase("{folder}: there is no such folder of answers", folder=folder))
    found = sorted(path for path in folder.iterdir() if path.suffix == ".json")
    if not found or len(found) > MOST_FILES:
        words = later("{folder}: has {files:,} .json files; wanted 1 to {most:,}")
        raise BadInput(phrase(words, folder=folder, files=len(found), most=MOST_FILES))
    return found


def harmless(text: str) -> str:
    """Return a cell that a spreadsheet does not take for a formula.

    >>> harmless("=1+1"), harmless("right")
    ("'=1+1", 'right')
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _answers(
    lm: LM, files: list[LearnerFile], courses: dict[str, Course], announce: Announce
) -> Iterator[tuple[tuple[str, str], object]]:
    """Yield ((language, page), right answer) of every page that was answered; None without an answer."""
    wanted = [
        (language, page)
        for language, course in courses.items()
        for page in course.pages
        if any(page.name in file.pages for file in files if file.language == language)
    ]
    for done, (language, page) in enumerate(wanted):
        announce(done, len(wanted))
        yield (language, page.name), _answer(lm, page)


def _answer(lm: LM, page: Page) -> object:
    lesson = Lesson(page, lm)
    try:
        lesson.outputs()
        return lesson.answer()
    except (CellFailed, Missing):
        return None


def _row(
    file: LearnerFile, course: Course, right: dict[tuple[str, str], object], names: list[str]
) -> list[str]:
    judged: dict[str, str] = {}
    for name, answered in file.pages.items():
        answer = right[file.language, name]
        judged[name] = UNMARKED if answer is None else check(answered.guess, answer, course.words).judged
    counts = [str(list(judged.values()).count(kind)) for kind in JUDGED]
    cells = [phrase(judged[name]) if name in judged else "" for name in names]
    return [file.path.name, file.name, file.model, str(len(file.pages)), *counts, *cells]
