"""A run through the course, recorded: the text, printed output and values of every page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.text import Text

import pophood
from pophood.course import Course, Lesson, Page, Verdict
from pophood.look.blocks import Lines, Points
from pophood.look.view import View
from pophood.table import Table


@dataclass(frozen=True)
class Walked:
    """The results of one page on one model."""

    page: Page
    said: str  # the page's own text
    printed: str  # the output that its cells printed
    values: list[object]
    verdict: Verdict

    @property
    def views(self) -> list[View]:
        return [value for value in self.values if isinstance(value, View)]

    @property
    def shown(self) -> str:
        """All output of its cells as text: printed lines, tables, titles, notes, picture descriptions."""
        return "\n".join([self.printed, *(text_of(value) for value in self.values)])


def walk(course: Course, lm: pophood.LM, only: Iterable[str] = ()) -> dict[str, Walked]:
    """Run every page (or the named ones) and return the results by page name."""
    walked = {}
    for page in course.pages:
        if only and page.name not in only:
            continue
        lesson = Lesson(page, lm)
        outputs = lesson.outputs()
        cells = [*page.lead, *(cell for section in page.sections.values() for cell in section)]
        said = "\n".join(
            " ".join(cell.text.split()) for cell in lesson.applying(tuple(cells)) if cell.kind != "say"
        )
        printed = "".join(output.printed for output in outputs)
        verdict = lesson.check(None)
        sentences = [" ".join(lesson.say(cell).split()) for cell in page.cells("say", "explain")]
        said = "\n".join([said, *sentences])
        values = [output.value for output in outputs if output.value is not None]
        walked[page.name] = Walked(page, said, printed, values, verdict)
    return walked


def text_of(value: object) -> str:
    """Return a cell's value as text."""
    if not isinstance(value, View):
        return str(value)
    parts = [value.title, value.alt, *value.notes, *map(str, value.tables().values())]
    for block in value.picture():
        if isinstance(block, Lines):
            parts.append(block.text)
        elif isinstance(block, Points):
            parts += [block.title, *(label for _, _, label, _ in block.points)]
    return "\n".join(parts)


def drawn(view: View) -> list[str]:
    """Return every text in the view's picture."""
    figure = view.figure("light")
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


def numbers(view: View) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the view's arrays by name, including those of its fields."""
    shapes = {name: array.shape for name, array in view.arrays().items()}
    for field in dataclasses.fields(view):
        value = getattr(view, field.name)
        if isinstance(value, np.ndarray):
            shapes.setdefault(field.name, value.shape)
    return shapes


def table_with(view: View, *columns: str) -> Table:
    """Return the view's first table that has these columns."""
    return next(table for table in view.tables().values() if set(columns) <= set(table.columns))
