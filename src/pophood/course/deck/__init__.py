"""The course as one HTML page of slides, with the model's outputs and pictures.

The page needs no network. A page of the course becomes two slides, or as many as its front matter says
(`parts.arranged`). Without scripts all slides are shown one below the other; `deck.js` shows one at a time,
fits its text into it, and opens the presenter's window. Without matplotlib, tables stand in for pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pophood.course.deck.parts import Group, Part, arranged, columns, formula, html, text, value_parts
from pophood.course.lesson import Lesson
from pophood.course.markup import plain
from pophood.course.pages import Cell, Course, Page
from pophood.course.shell import with_model
from pophood.look.reproduce import number_options
from pophood.look.source import ViewSource
from pophood.model.lm import LM
from pophood.phrases import speaking
from pophood.web import render_page

Announce = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide: id, title, the column that is shown (`shown`), the one that is said, and the notes."""

    id: str
    title: str
    said: list[Part]
    shown: list[Part] = field(default_factory=list)
    notes: list[Part] = field(default_factory=list)
    place: str = ""
    first: bool = False  # begins a page of the course


def deck_html(course: Course, lm: LM, model: str = "", announce: Announce = lambda *_: None) -> str:
    """Return the whole deck. `announce` is called with each page before it runs: the number of pages that
    are done, of all, and the title; `model` is the value of -m.

    Raises CellFailed for a cell that this model cannot run.
    """
    deck = _Deck(course, lm, model)
    with speaking(course.language):
        slides = [deck.opening(), *deck.contents()]
        for done, page in enumerate(course.pages):
            announce(done, len(course.pages), page.title)
            slides += deck.page(page)
    return render_page(
        __package__,
        "deck",
        title=f"{course.title}: {lm.name}",
        language=course.language,
        words=course.words,
        pages=course.pages,
        slides=slides,
    )


class _Deck:
    """Makes the slides of one course with one model."""

    def __init__(self, course: Course, lm: LM, model: str) -> None:
        self._course = course
        self._words = course.words
        self._lm = lm
        self._model = model
        self._options = "".join(f" {word}" for word in number_options(ViewSource.of(lm)))

    def opening(self) -> Slide:
        """Return the title slide: the course, and the model that computed its numbers."""
        from pophood import __version__

        model = self._lm.name + ViewSource.of(self._lm).with_adapters()
        precision = self._lm.engine.precision
        made_with = self._words["made_with"].format(version=__version__, model=model, precision=precision)
        texts = {"sub": self._words["subtitle"], "made": made_with, "keys": self._words["keys"]}
        parts = [text(kind, words) for kind, words in texts.items()]
        return Slide("start", self._course.title, parts, first=True)

    def contents(self) -> Iterator[Slide]:
        """Yield the talk's table of contents, if the course has it."""
        if self._course.contents:
            parts = [self._cell(cell) for cell in self._course.contents]
            yield Slide("contents-of-the-talk", self._words["contents"], parts, first=True)

    def page(self, page: Page) -> Iterator[Slide]:
        """Yield the question, the run cells that stand apart from it, and the answer with its explanation."""
        lesson = Lesson(page, self._lm)
        groups, commands = self._runs(lesson)
        plan = arranged(page.slides, groups)
        yield self._question(page, [*plan.beside_question, *([] if plan.apart else commands)])
        for number, group in enumerate(plan.apart, 1):
            said, shown = columns(group)
            said += commands if number == len(plan.apart) else []
            notes = [note for one in group for note in one.notes]
            yield self._slide(page, f"r{number}", "run", said, shown, *notes)
        notes = [] if plan.apart else [note for one in groups for note in one.notes]
        yield self._answer(page, lesson, plan.beside_answer, notes)

    def _slide(
        self, page: Page, mark: str, section: str, said: list[Part], shown: list[Part], *notes: Part
    ) -> Slide:
        place = self._words["page"].format(number=page.number, pages=len(self._course.pages), title="")
        return Slide(
            id=f"p{page.number}{mark}",
            title=plain(page.title) + (f" · {self._words[section]}" if mark else ""),
            said=said,
            shown=shown,
            notes=list(notes),
            place=f"{place.rstrip(': ')} · {self._course.place(page)}",
            first=not mark,
        )

    def _question(self, page: Page, shown: list[Part]) -> Slide:
        parts = [self._cell(cell) for cell in (*page.lead, *page.sections["predict"]) if cell.kind != "notes"]
        notes = [html("prose", cell.text) for cell in page.cells("notes")]
        return self._slide(page, "", "predict", parts, shown, *notes)

    def _runs(self, lesson: Lesson) -> tuple[list[Group], list[Part]]:
        """Run the cells: a group for each run cell, led by the text before it, and the shell commands.

        A text after the last run cell ends the last group.
        """
        groups, before, commands = [], list[Part](), list[Part]()
        for cell in lesson.applying(lesson.page.sections["run"]):
            if cell.kind == "run":
                groups.append(self._run(lesson, cell, before))
                before = []
            elif cell.kind == "sh":
                commands.append(self._cell(cell))
            elif cell.kind == "say":
                before.append(html("prose", lesson.say(cell)))
            elif cell.kind != "notes":
                before.append(self._cell(cell))
        groups[-1].after.extend(before)
        return groups, commands

    def _run(self, lesson: Lesson, cell: Cell, before: list[Part]) -> Group:
        output = lesson.run(cell)
        shown = [text("out", output.printed.rstrip())] if output.printed else []
        if output.value is not None:
            shown += value_parts(output.value)
        return Group(before, text("code", cell.text), shown)

    def _answer(self, page: Page, lesson: Lesson, shown: list[Part], notes: list[Part]) -> Slide:
        parts = [self._cell(cell) for cell in page.sections["check"] if cell.kind == "prose"]
        parts.append(text("asked", " ".join(page.guess.text.split())))
        parts.append(text("answer", str(lesson.check(None))))
        parts += [
            html("prose", lesson.say(cell)) if cell.kind == "say" else self._cell(cell)
            for cell in lesson.applying(page.sections["explain"])
            if cell.kind != "notes"
        ]
        solution = [self._cell(cell) for cell in lesson.applying(page.solution) if cell.kind != "run"]
        return self._slide(page, "x", "explain", parts, shown, *solution, *notes)

    def _cell(self, cell: Cell) -> Part:
        if cell.kind == "guess":
            return text("question", " ".join(cell.text.split()))
        if cell.kind == "hint":
            return html("hint", cell.text)
        if cell.kind == "differs":
            return html("differs", f"**{self._words['in_this_model'].strip()}** {cell.text}")
        if cell.kind == "sh":
            return text("command", with_model(cell.text, self._model, self._options))
        if cell.kind == "formula":
            return formula(*cell.formula)
        return text("text", cell.text) if cell.kind in ("text", "run") else html("prose", cell.text)
