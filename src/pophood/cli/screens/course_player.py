"""The course at a terminal or through a pipe: pages, guesses and navigation.

Guesses are kept in memory, and in a file of answers if one is given.

A terminal prompts for answers. A pipe supplies them line by line; when its lines end, or with --yes, the rest
of the course runs without questions.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pophood.cli.app import DONE, FAILED, INTERRUPTED
from pophood.cli.terminal.answers import Answers
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.page_view import Sheet
from pophood.course import Lesson
from pophood.course.answers import JUDGED, readable
from pophood.course.lesson import CellFailed
from pophood.course.shell import with_model
from pophood.course.words import listed
from pophood.look.reproduce import number_options
from pophood.look.source import ViewSource

if TYPE_CHECKING:
    from pophood.course import Course, Page
    from pophood.course.classroom.answer_file import LearnerFile
    from pophood.course.pages import Cell
    from pophood.model.lm import LM


class Left(Exception):
    """Raised when the reader leaves the course."""


@dataclass
class Walk:
    """One walk through the course with one model, from the page `first` to the page `last`."""

    console: Console
    course: Course
    lm: LM
    first: int
    last: int
    command: str  # the command that starts the course: "pophood talk -m smollm2"
    model: str  # its name in the printed commands; "" for the default model
    ask: bool
    notes: bool
    kept: LearnerFile | None = None  # the answers are read from it, and written to it

    def __post_init__(self) -> None:
        self._words = self.course.words
        self._options = "".join(f" {word}" for word in number_options(ViewSource.of(self.lm)))
        self._sheet = Sheet(self.console)
        self._at = self.first
        self._answers = Answers(sys.stdin)
        kept = self.kept.pages if self.kept is not None else {}
        # Page name -> verdict on its guess.
        self._judged: dict[str, str] = {name: answered.judged for name, answered in kept.items()}
        self._cell_failed = False

    def run(self) -> int:
        """Show the requested pages and return the exit code."""
        try:
            if self.first == 1 and self.last > 1:
                self._contents()
            while self._at <= self.last:
                self._at = self._page(self.course.pages[self._at - 1])
        except Left:
            self._say_where()
            return DONE
        except KeyboardInterrupt:
            self.console.out()
            self._say_where()
            return INTERRUPTED
        if self.last == len(self.course.pages) and (self.first == 1 or self.kept is not None):
            judged = list(self._judged.values())
            counts = {kind: judged.count(kind) for kind in JUDGED}
            words = self._words["end"].format(asked=sum(counts.values()), **counts)
            if any(counts.values()):
                self._sheet.line(words)
        return FAILED if self._cell_failed else DONE

    def _contents(self) -> None:
        if self.course.contents:
            self._sheet.heading(self._words["contents"], 1)
        for cell in self.course.contents:
            self._cell(cell)

    # ---- one page ----

    def _page(self, page: Page) -> int:
        """Show a page and return the number of the next one."""
        self._head(page)
        lesson = Lesson(page, self.lm)
        guess = self._guess(page)
        self._section(lesson, "run")
        self._section(lesson, "check", guess)
        self._section(lesson, "explain")
        return self._next(page, lesson)

    def _head(self, page: Page) -> None:
        pages = len(self.course.pages)
        words = self._words["page"].format(number=page.number, pages=pages, title=page.title)
        self._sheet.heading(f"{words} ({self.course.place(page)})", 1)
        for cell in page.lead:
            self._cell(cell)
        if self.notes:
            for cell in page.cells("notes"):
                self._sheet.prose(cell.text, f"{self._words['notes']}: ")

    def _section(self, lesson: Lesson, section: str, guess: str | None = None) -> None:
        self._sheet.heading(self._words[section])
        for cell in lesson.applying(lesson.page.sections[section]):
            self._show(lesson, cell, guess)

    def _show(self, lesson: Lesson, cell: Cell, guess: str | None = None) -> None:
        """Run a cell or print it; a cell that fails is reported."""
        try:
            if cell.kind == "run":
                self._run(lesson, cell)
            elif cell.kind == "say":
                self._sheet.prose(lesson.say(cell))
            elif cell.kind == "check":
                self._check(lesson, cell, guess)
            elif cell.kind != "notes":
                self._cell(cell)
        except CellFailed as error:
            self._cell_failed = True
            self.console.say(f"pophood: {error}")

    def _cell(self, cell: Cell) -> None:
        if cell.kind == "differs":
            self._sheet.prose(cell.text, self._words["in_this_model"])
        elif cell.kind == "sh":
            self._sheet.line(self._words["same_command"])
            self._sheet.code(with_model(cell.text, self.model, self._options), "sh")
        elif cell.kind == "text":
            self._sheet.code(cell.text, "text")
        elif cell.kind == "formula":
            self._sheet.code(cell.formula[0], "text")
        else:
            self._sheet.prose(cell.text)

    def _run(self, lesson: Lesson, cell: Cell) -> None:
        self._sheet.code(cell.text, "python")
        self.console.out()
        output = lesson.run(cell)
        self.console.write(output.printed)
        self.console.end_line()
        self._sheet.value(output.value)

    def _check(self, lesson: Lesson, cell: Cell, guess: str | None) -> None:
        self._sheet.code(cell.text, "python")
        verdict = lesson.check(guess)
        self._sheet.verdict(str(verdict), verdict.judged)
        if verdict.judged in JUDGED:
            self._judged[lesson.page.name] = verdict.judged
        if self.kept is not None and guess:
            self.kept.keep(lesson.page, guess, verdict)

    # ---- questions ----

    def _guess(self, page: Page) -> str | None:
        """Ask until the reader gives a guess of the right form, and return it.

        Without one, return the guess of the file of answers, if there is one.
        """
        self._sheet.heading(self._words["predict"])
        for cell in page.sections["predict"]:
            if cell.kind in ("prose", "text", "guess"):
                self._cell(cell)
        form = self._words[f"form_{page.guess.label}"]
        hints = list(page.hints)
        kept = None if self.kept is None else self.kept.guess(page)
        if kept is not None and self.ask:
            self._sheet.line(self._words["kept"].format(guess=kept))
        while (given := self._line(self._words["ask"].format(form=form))) is not None:
            if given == "?":
                self._hint(hints)
            elif self._means("quit", given):
                raise Left
            elif readable(page.guess.label, given, self._words):
                return given or kept
            else:
                self._sheet.line(self._words["not_understood"].format(form=form))
        return kept

    def _hint(self, hints: list[Cell]) -> None:
        if hints:
            self._sheet.prose(hints.pop(0).text, f"{self._words['hint']}: ")
        else:
            self._sheet.line(self._words["no_more_hints"])

    def _next(self, page: Page, lesson: Lesson) -> int:
        """Ask where to go next, and return the page number."""
        pages = len(self.course.pages)
        while (answer := self._line("\n" + self._words["ask_next"])) is not None:
            if self._means("quit", answer):
                raise Left
            if self._means("back", answer):
                if page.number > 1:
                    return page.number - 1
                self._sheet.line(self._words["first_page"])
            elif self._means("solution", answer):
                self._solution(page, lesson)
            elif self._means("list", answer):
                self.console.out(contents(self.course))
            elif answer.isdecimal() and 1 <= int(answer) <= pages:
                return int(answer)
            elif not answer or self._means("next", answer):
                break
            else:
                self._sheet.line(self._words["no_such_page"].format(pages=pages))
        return page.number + 1

    def _means(self, what: str, typed: str) -> bool:
        return typed.lower() in listed(self._words[f"words_{what}"])

    def _solution(self, page: Page, lesson: Lesson) -> None:
        self._sheet.heading(self._words["solution"])
        for cell in lesson.applying(page.solution):
            self._show(lesson, cell)

    def _line(self, question: str) -> str | None:
        """Return the reader's next line ("" for a bare Enter), or None if no questions are asked any more."""
        line = self._answers.ask(question) if self.ask else None
        if line is not None:
            return line.strip()
        if self.ask and self._answers.interactive:
            self.console.out()
            raise Left
        self.ask = False
        return None

    def _say_where(self) -> None:
        command = f"{self.command} --from {self._at}"
        self.console.say(self._words["left"].format(number=self._at, command=command))


def contents(course: Course) -> str:
    """Return the list of pages, each with its page of the talk."""
    rows = [(f"{page.number:>2}", page.title, course.place(page)) for page in course.pages]
    widest = max(len(title) for _, title, _ in rows)
    return "\n".join(f"{number}  {title:<{widest}}  {place}" for number, title, place in rows)
