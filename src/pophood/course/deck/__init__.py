"""The course as one HTML page of slides, with the outputs and pictures of the model at hand.

The page needs no network and forbids itself to ask (content security policy). Without scripts all slides
stand one below the other; `deck.js` shows one at a time. Without matplotlib, tables stand in for pictures.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Iterator
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from pophood.course.answers import Verdict
from pophood.course.deck.formula import formula_html
from pophood.course.deck.shown import value_html, words_html
from pophood.course.lesson import Lesson
from pophood.course.markup import plain, to_html
from pophood.course.pages import Cell, Course, Page
from pophood.look.reproduce import number_options
from pophood.look.source import ViewSource

if TYPE_CHECKING:
    from pophood.model.lm import LM


def deck_html(
    course: Course, lm: LM, model: str = "", announce: Callable[[str], object] = lambda _: None
) -> str:
    """The whole deck as text; `announce` hears each page as it is run, `model` is what `-m` takes.

    Raises CellFailed for a cell that this model cannot run.
    """
    deck = _Deck(course, lm, model)
    slides = [deck.opening(), *deck.contents()]
    for page in course.pages:
        announce(f"{page.number}/{len(course.pages)} {page.title}")
        slides += deck.page(page)
    parts = files("pophood.course.deck")
    css, script, frame = (parts.joinpath(f"deck.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    words = {key: html.escape(value) for key, value in course.words.items()}
    return Template(frame).substitute(
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(css)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        language=html.escape(course.language),
        title=html.escape(f"{course.title}: {lm.name}"),
        css=css,
        script=script,
        contents="\n".join(
            f'<li><a href="#p{page.number}">{html.escape(page.title)}</a></li>' for page in course.pages
        ),
        slides="\n".join(slides),
        words_contents=words["contents"],
        words_next=words["next_slide"],
        words_previous=words["previous_slide"],
        words_theme=words["theme"],
        words_notes=words["notes"],
    )


class _Deck:
    """Makes the slides of one course with one model."""

    def __init__(self, course: Course, lm: LM, model: str) -> None:
        self._course = course
        self._words = course.words
        self._lm = lm
        self._model = model
        self._options = "".join(f" {word}" for word in number_options(ViewSource.of(lm)))

    def opening(self) -> str:
        """The title slide: the course, and what computed its numbers."""
        from pophood import __version__

        model = self._lm.name + ViewSource.of(self._lm).with_adapters()
        made = self._words["made_with"].format(
            version=__version__, model=model, precision=self._lm.engine.precision
        )
        body = (
            f"<p class=sub>{html.escape(self._words['subtitle'])}</p><p>{html.escape(made)}</p>"
            f"<p class=keys>{html.escape(self._words['keys'])}</p>"
        )
        return _slide("start", self._course.title, body, first=True)

    def contents(self) -> Iterator[str]:
        """The talk's table of contents, if the course has it."""
        if self._course.contents:
            body = "\n".join(self._cell(cell) for cell in self._course.contents)
            yield _slide("contents-of-the-talk", self._words["contents"], body, first=True)

    def page(self, page: Page) -> Iterator[str]:
        """Question, one slide for each run cell, answer and explanation."""
        lesson = Lesson(page, self._lm)
        yield self._question(page)
        runs = list(self._runs(lesson))
        for number, body in enumerate(runs, 1):
            yield _slide(f"p{page.number}r{number}", self._title(page, "run"), body)
        yield self._answer(page, lesson)

    def _question(self, page: Page) -> str:
        words = self._words
        place = words["page"].format(number=page.number, pages=len(self._course.pages), title="").rstrip(": ")
        talk = self._course.place(page)
        parts = [f"<p class=place>{html.escape(place)} · {html.escape(talk)}</p>"]
        parts += [self._cell(cell) for cell in page.lead]
        parts.append(f"<h3>{html.escape(words['predict'])}</h3>")
        parts += [self._cell(cell) for cell in page.sections["predict"] if cell.kind != "notes"]
        parts += [
            f'<aside class="notes"><h3>{html.escape(words["notes"])}</h3>{to_html(cell.text)}</aside>'
            for cell in page.cells("notes")
        ]
        return _slide(f"p{page.number}", page.title, "\n".join(parts), first=True)

    def _runs(self, lesson: Lesson) -> Iterator[str]:
        """The body of one slide for each run cell; what stands between joins the slide before it."""
        body: list[str] = []
        ran = False
        for cell in lesson.applying(lesson.page.sections["run"]):
            if cell.kind == "notes":
                continue
            if cell.kind == "run":
                if ran:
                    yield "\n".join(body)
                    body = []
                ran = True
                output = lesson.run(cell)
                body.append(f"<pre><code>{html.escape(cell.text)}</code></pre>")
                if output.printed:
                    body.append(f"<pre class=out>{words_html(output.printed.rstrip())}</pre>")
                if output.value is not None:
                    body.append(value_html(output.value))
            elif cell.kind == "say":
                body.append(to_html(lesson.say(cell)))
            else:
                body.append(self._cell(cell))
        yield "\n".join(body)

    def _answer(self, page: Page, lesson: Lesson) -> str:
        verdict = lesson.check(None)
        parts = [self._cell(cell) for cell in page.sections["check"] if cell.kind == "prose"]
        parts.append(
            f"<p class=question>{html.escape(' '.join(page.guess.text.split()))}</p>"
            f"<p class=answer>{html.escape(self._verdict(verdict))}</p>"
        )
        explained = lesson.applying(page.sections["explain"])
        parts += [
            to_html(lesson.say(cell)) if cell.kind == "say" else self._cell(cell)
            for cell in explained
            if cell.kind != "notes"
        ]
        return _slide(f"p{page.number}x", self._title(page, "explain"), "\n".join(parts))

    def _verdict(self, verdict: Verdict) -> str:
        answer = {"yes": self._words["yes"], "no": self._words["no"]}.get(verdict.answer, verdict.answer)
        return self._words[verdict.judged].format(answer=answer, given=verdict.given)

    def _title(self, page: Page, section: str) -> str:
        return f"{page.title} · {self._words[section]}"

    def _cell(self, cell: Cell) -> str:
        words = self._words
        if cell.kind == "guess":
            return f"<p class=question>{html.escape(' '.join(cell.text.split()))}</p>"
        if cell.kind == "hint":
            return f"<details><summary>{html.escape(words['hint'])}</summary>{to_html(cell.text)}</details>"
        if cell.kind == "differs":
            lead = f"**{words['in_this_model'].strip()}** "
            return f"<div class=differs>{to_html(lead + cell.text)}</div>"
        if cell.kind == "sh":
            from pophood.course.shell import with_model

            command = html.escape(with_model(cell.text, self._model, self._options))
            return f"<p>{html.escape(words['same_command'])}</p><pre><code>{command}</code></pre>"
        if cell.kind == "formula":
            return formula_html(*cell.formula)
        if cell.kind == "text":
            return f"<pre>{html.escape(cell.text)}</pre>"
        return to_html(cell.text)


def _slide(name: str, title: str, body: str, *, first: bool = False) -> str:
    """One slide; `first` begins a page of the course."""
    kind = "slide first" if first else "slide"
    heading = f'<h2 id="{name}h" tabindex="-1">{html.escape(plain(title))}</h2>'
    return (
        f'<section class="{kind}" id="{name}" aria-labelledby="{name}h">\n{heading}\n'
        f"<div class=body>{body}</div>\n</section>"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
