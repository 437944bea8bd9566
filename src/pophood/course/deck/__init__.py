"""The course as one HTML page of slides, with the model's outputs and pictures.

The page needs no network. Without scripts all slides are shown one below the other; `deck.js` shows one at
a time. Without matplotlib, tables stand in for pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pophood.course.deck.parts import Part, formula, value_parts
from pophood.course.lesson import Lesson
from pophood.course.markup import plain, to_html
from pophood.course.pages import Cell, Course, Page
from pophood.course.shell import with_model
from pophood.look.reproduce import number_options
from pophood.look.source import ViewSource
from pophood.model.lm import LM
from pophood.web import render_page, safe_html


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide: its id, its title, and its parts as `deck.html` shows them; `first` begins a course page."""

    id: str
    title: str
    parts: list[Part]
    first: bool = False


def deck_html(
    course: Course, lm: LM, model: str = "", announce: Callable[[str], object] = lambda _: None
) -> str:
    """Return the whole deck. `announce` is called with each page before it runs; `model` is the value of -m.

    Raises CellFailed for a cell that this model cannot run.
    """
    deck = _Deck(course, lm, model)
    slides = [deck.opening(), *deck.contents()]
    for page in course.pages:
        announce(f"{page.number}/{len(course.pages)} {page.title}")
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
        parts = [_text(kind, text) for kind, text in texts.items()]
        return Slide("start", self._course.title, parts, first=True)

    def contents(self) -> Iterator[Slide]:
        """Yield the talk's table of contents, if the course has it."""
        if self._course.contents:
            parts = [self._cell(cell) for cell in self._course.contents]
            yield Slide("contents-of-the-talk", self._words["contents"], parts, first=True)

    def page(self, page: Page) -> Iterator[Slide]:
        """Yield the question, one slide for each run cell, and the answer with its explanation."""
        lesson = Lesson(page, self._lm)
        yield self._question(page)
        for number, parts in enumerate(list(self._runs(lesson)), 1):
            yield Slide(f"p{page.number}r{number}", self._title(page, "run"), parts)
        yield self._answer(page, lesson)

    def _question(self, page: Page) -> Slide:
        words = self._words
        place = words["page"].format(number=page.number, pages=len(self._course.pages), title="").rstrip(": ")
        parts = [_text("place", f"{place} · {self._course.place(page)}")]
        parts += [self._cell(cell) for cell in page.lead]
        parts.append(_text("heading", words["predict"]))
        parts += [self._cell(cell) for cell in page.sections["predict"] if cell.kind != "notes"]
        parts += [_html("notes", cell.text) for cell in page.cells("notes")]
        return Slide(f"p{page.number}", plain(page.title), parts, first=True)

    def _runs(self, lesson: Lesson) -> Iterator[list[Part]]:
        """Yield the parts of one slide for each run cell; other cells join the slide before them."""
        parts: list[Part] = []
        ran = False
        for cell in lesson.applying(lesson.page.sections["run"]):
            if cell.kind == "notes":
                continue
            if cell.kind == "run":
                if ran:
                    yield parts
                    parts = []
                ran = True
                output = lesson.run(cell)
                parts.append(_text("code", cell.text))
                if output.printed:
                    parts.append(_text("out", output.printed.rstrip()))
                if output.value is not None:
                    parts += value_parts(output.value)
            elif cell.kind == "say":
                parts.append(_html("prose", lesson.say(cell)))
            else:
                parts.append(self._cell(cell))
        yield parts

    def _answer(self, page: Page, lesson: Lesson) -> Slide:
        parts = [self._cell(cell) for cell in page.sections["check"] if cell.kind == "prose"]
        parts.append(_text("question", " ".join(page.guess.text.split())))
        parts.append(_text("answer", str(lesson.check(None))))
        parts += [
            _html("prose", lesson.say(cell)) if cell.kind == "say" else self._cell(cell)
            for cell in lesson.applying(page.sections["explain"])
            if cell.kind != "notes"
        ]
        return Slide(f"p{page.number}x", self._title(page, "explain"), parts)

    def _title(self, page: Page, section: str) -> str:
        return f"{plain(page.title)} · {self._words[section]}"

    def _cell(self, cell: Cell) -> Part:
        if cell.kind == "guess":
            return _text("question", " ".join(cell.text.split()))
        if cell.kind == "hint":
            return _html("hint", cell.text)
        if cell.kind == "differs":
            return _html("differs", f"**{self._words['in_this_model'].strip()}** {cell.text}")
        if cell.kind == "sh":
            return _text("command", with_model(cell.text, self._model, self._options))
        if cell.kind == "formula":
            return formula(*cell.formula)
        return _text("text", cell.text) if cell.kind == "text" else _html("prose", cell.text)


def _text(kind: str, text: str) -> Part:
    return {"kind": kind, "text": text}


def _html(kind: str, markdown: str) -> Part:
    return {"kind": kind, "html": safe_html(to_html(markdown))}
