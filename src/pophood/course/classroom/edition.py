"""The teacher's edition as one HTML page: plans, and for each page question, hints, answer, notes, solution.

The answers are computed by the loaded model, so they are those that the class will see with the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pophood.course.classroom.plans import PLANS, plan
from pophood.course.lesson import Lesson
from pophood.course.markup import plain, to_html
from pophood.course.pages import Cell, Course, Page
from pophood.model.lm import LM
from pophood.phrases import speaking
from pophood.web import render_page, safe_html

Announce = Callable[[int, int, str], object]


def edition_html(
    course: Course, lm: LM, announce: Announce = lambda *_: None, plans: Iterable[int] = PLANS
) -> str:
    """Return the whole page. `announce` is called with each page before it runs, as in `deck_html`.

    Raises CellFailed for a cell that this model cannot run.
    """
    from pophood import __version__

    pages = []
    with speaking(course.language):
        for done, page in enumerate(course.pages):
            announce(done, len(course.pages), page.title)
            pages.append(_page(course, page, lm))
    made_with = course.words["made_with"].format(
        version=__version__, model=lm.name, precision=lm.engine.precision
    )
    return render_page(
        __package__,
        "edition",
        document=True,
        title=f"{course.words['edition']}: {course.title}",
        language=course.language,
        words=course.words,
        facts={},
        made_with=made_with,
        plans=[(course.words["plan"].format(minutes=minutes), plan(course, minutes)) for minutes in plans],
        pages=pages,
    )


def _page(course: Course, page: Page, lm: LM) -> dict[str, Any]:
    lesson = Lesson(page, lm)
    lesson.outputs()
    return {
        "number": page.number,
        "title": plain(page.title),
        "place": course.place(page),
        "question": " ".join(page.guess.text.split()),
        "hints": [_html(cell) for cell in page.hints],
        "answer": str(lesson.check(None)),
        "notes": [_html(cell) for cell in page.cells("notes")],
        "solution": [
            _html(cell) for cell in lesson.applying(page.solution) if cell.kind in ("prose", "differs")
        ],
        "code": [cell.text for cell in lesson.applying(page.solution) if cell.kind in ("run", "sh", "text")],
    }


def _html(cell: Cell) -> Any:
    return safe_html(to_html(cell.text))
