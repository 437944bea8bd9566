"""The course as plain data for another program: its pages, and what their cells gave on a model.

Only cells of the course itself are run: a request names a page and a cell, and no code is read from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pophood.course.lesson import CellFailed, Lesson
from pophood.course.pages import SECTIONS, Cell, Course, Page
from pophood.course.parse import load_course
from pophood.errors import BadInput, Unsupported, short
from pophood.phrases import later, phrase, speaking

if TYPE_CHECKING:
    from pophood.model.lm import LM

RUN = ("run", "say")  # kinds of cells that give something
LONGEST = 20_000  # characters of what a cell printed


def contents(course: Course) -> dict[str, Any]:
    """Return the list of pages."""
    pages = [
        {"number": page.number, "name": page.name, "title": page.title, "talk": page.talk}
        | {
            "place": course.place(page),
            "needs": page.needs or None,
            "guess": page.guess.text,
            "form": page.guess.label,
        }
        for page in course.pages
    ]
    return {"language": course.language, "title": course.title, "words": dict(course.words), "pages": pages}


def page_of(course: Course, page: int | str) -> Page:
    """Return a page by its number or its name. Raises BadInput."""
    for one in course.pages:
        if page in (one.number, str(one.number), one.name):
            return one
    raise BadInput(f"there is no page {short(page)}: there are 1 to {len(course.pages)}")


def page_data(course: Course, page: Page) -> dict[str, Any]:
    """Return a page: its cells by section, each with the number that `run_cell` takes."""
    return {
        "number": page.number,
        "pages": len(course.pages),
        "name": page.name,
        "title": page.title,
        "talk": page.talk,
        "place": course.place(page),
        "needs": page.needs or None,
        "lead": _cells(page.lead),
        "sections": {name: _cells(page.sections[name]) for name in SECTIONS},
        "solution": _cells(page.solution),
    }


def _cells(cells: tuple[Cell, ...]) -> list[dict[str, Any]]:
    return [
        {"index": index, "kind": cell.kind, "label": cell.label, "text": cell.text}
        | ({"plain": cell.formula[0], "tex": cell.formula[1]} if cell.kind == "formula" else {})
        for index, cell in enumerate(cells)
        if cell.kind != "check"  # its code would tell the answer
    ]


class Lessons:
    """The pages that were begun on a model, each with its variables. For the process of the model."""

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self._begun: dict[tuple[str, int], Lesson] = {}

    def run(self, language: str, number: int, section: str, index: int) -> dict[str, Any]:
        """Run a cell and return what it gave. Raises BadInput, Unsupported."""
        lesson = self._lesson(language, number)
        cells = lesson.page.sections.get(section, ())
        if not 0 <= index < len(cells) or cells[index].kind not in RUN:
            raise BadInput(f"page {number} has no cell {index} to run in {section[:40]!r}")
        with speaking(language):
            try:
                output = lesson.run(cells[index])
            except CellFailed as error:
                raise BadInput(str(error)) from error
            return {"printed": output.printed[:LONGEST], "value": _value(output.value)}

    def check(self, language: str, number: int, guess: str) -> dict[str, Any]:
        """Compare a guess with the answer, which is computed from the model. Raises BadInput, Unsupported."""
        try:
            verdict = self._lesson(language, number).check(guess)
        except CellFailed as error:
            raise BadInput(str(error)) from error
        return {
            "judged": verdict.judged,
            "answer": verdict.answer,
            "given": verdict.given,
            "text": str(verdict),
        }

    def _lesson(self, language: str, number: int) -> Lesson:
        if (language, number) not in self._begun:
            page = page_of(load_course(language), number)
            if page.needs:
                with speaking(language):
                    words = later("page {number} trains a model: take it with `pophood talk --page {number}`")
                    raise Unsupported(phrase(words, number=number))
            self._begun[language, number] = Lesson(page, self.lm)
        return self._begun[language, number]


def _value(value: object) -> dict[str, Any] | None:
    """Return a value as a view, a table or a text."""
    from pophood.look.answer import record, table_data
    from pophood.look.view import View
    from pophood.table import Table

    if value is None:
        return None
    if isinstance(value, View):
        return {"kind": "view", **record(value)}
    if isinstance(value, Table):
        return {"kind": "table", **table_data("", value)}
    return {"kind": "text", "text": value if isinstance(value, str) else repr(value)}
