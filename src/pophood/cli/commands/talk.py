"""`pophood talk`: runs the course page by page at a terminal, or writes its notebook, slides and the like."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.options.shared import ModelChoice, model_options, output_option, text_option, verb
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.course import Course
    from pophood.course.classroom import LearnerFile
    from pophood.model.lm import LM


@verb()
@text_option("--page", type=click.IntRange(1), help="Show page N only.")
@text_option("--from", "start", type=click.IntRange(1), help="Begin at page N.")
@text_option("--list", "listing", is_flag=True, help="List the pages, and load no model.")
@text_option("--yes", is_flag=True, help="Ask nothing: run every page to the end.")
@text_option("--notes", is_flag=True, help="Show the notes for the teacher too.")
@text_option(
    "--answers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the guesses in a file, and go on with those that it has.",
)
@text_option("--language", default="en", metavar="CODE", help="The language of the course: en or es.")
@output_option(
    "--notebook",
    type=click.Path(path_type=Path),
    help="Write the course as a Jupyter notebook instead, and load no model.",
)
@output_option(
    "--slides",
    type=click.Path(path_type=Path),
    help="Write the course as one HTML page of slides instead, with this model's outputs and pictures.",
)
@output_option(
    "--teacher",
    type=click.Path(path_type=Path),
    help="Write the teacher's edition instead: this model's answers, notes, plans for 45 to 180 minutes.",
)
@output_option(
    "--mark",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Mark a folder of files of answers instead, as CSV on stdout.",
)
@functools.partial(model_options, precision="f32")
def talk_command(
    console: Console,
    page: int | None,
    start: int | None,
    listing: bool,
    yes: bool,
    notes: bool,
    answers: Path | None,
    language: str,
    notebook: Path | None,
    slides: Path | None,
    teacher: Path | None,
    mark: Path | None,
    choice: ModelChoice,
) -> int:
    """Take the course: the talk, page by page, live from the model.

    Each page asks for a guess, runs, checks the guess against the model, and explains. At a question, ?
    gives a hint; at the end of a page, Enter goes on, b back, q leaves. Through a pipe each line of stdin is
    an answer, and without any (or with --yes) the course runs from start to end.

    Example: pophood talk -m smollm2

    Example: pophood talk --answers me.json

    Example: pophood talk --slides talk.html
    """
    from pophood.course import load_course
    from pophood.phrases import speaking
    from pophood.system import check_writable_target

    if page is not None and start is not None:
        raise click.UsageError("--page shows one page and --from begins at one: give one of them")
    outputs = {"--notebook": notebook, "--slides": slides, "--teacher": teacher, "--mark": mark}
    walking = {"--page or --from": page or start, "--yes": yes, "--notes": notes, "--answers": answers}
    _check_mode({"--list": listing or None, **outputs}, walking)
    course = load_course(language)
    pages = len(course.pages)
    with speaking(language):
        _check_page(page or start or 1, pages)
        if listing:
            _list(console, course)
            return 0
        for target in filter(None, (notebook, slides, teacher, answers)):
            check_writable_target(target)
        if notebook is not None:
            _notebook(console, notebook, course)
            return 0
        if mark is not None:
            return _mark(console, mark, choice)
        from pophood.cli.session import open_model
        from pophood.course.classroom import LearnerFile

        kept = None if answers is None else LearnerFile.opened(answers, course)
        lm = open_model(console, choice)
        if slides is not None or teacher is not None:
            _make(console, course, lm, choice.name or "", slides, teacher)
            return 0
        span = page or start, page or pages
        return _walk(console, course, lm, span, choice, ask=not yes, notes=notes, kept=kept)


def _check_page(page: int, pages: int) -> None:
    from pophood.phrases import later, phrase

    if page > pages:
        words = later("there is no page {page}: there are 1 to {pages} (`pophood talk --list`)")
        raise BadInput(phrase(words, page=page, pages=pages))


def _list(console: Console, course: Course) -> None:
    from pophood.cli.screens.course_player import contents

    console.out(contents(course))


def _notebook(console: Console, file: Path, course: Course) -> None:
    from pophood.course.notebook import notebook_json

    _write(console, file, notebook_json(course))


def _walk(
    console: Console,
    course: Course,
    lm: LM,
    span: tuple[int | None, int],
    choice: ModelChoice,
    *,
    ask: bool,
    notes: bool,
    kept: LearnerFile | None,
) -> int:
    """Take the pages of `span`; with a file of answers and no first page, from the first open question on."""
    from pophood.cli.screens.course_player import Walk
    from pophood.cli.session import this_command

    first, last = span
    words = [f"{this_command()} talk"]
    if kept is not None:
        kept.model = lm.name
        words.append(f"--answers {shlex.quote(str(kept.path))}")
        first = first or (kept.first_open(course) if ask else 1)
    if course.language != "en":
        words.append(f"--language {course.language}")
    command = " ".join(words) + choice.typed("f32")
    return Walk(console, course, lm, first or 1, last, command, choice.name or "", ask, notes, kept).run()


def _make(
    console: Console, course: Course, lm: LM, model: str, slides: Path | None, teacher: Path | None
) -> None:
    """Write the slides or the teacher's edition, with a progress bar by pages."""
    from pophood.cli.terminal.progress import Waiting
    from pophood.course.classroom import edition_html
    from pophood.course.deck import deck_html
    from pophood.phrases import phrase

    what = phrase("making the slides") if slides else phrase("making the teacher's edition")
    with Waiting(console, what) as waiting:

        def announce(done: int, pages: int, title: str) -> None:
            waiting(done, pages)
            console.detail(f"{done + 1}/{pages} {title}")

        if slides is not None:
            _write(console, slides, deck_html(course, lm, model, announce))
        if teacher is not None:
            _write(console, teacher, edition_html(course, lm, announce))


def _mark(console: Console, folder: Path, choice: ModelChoice) -> int:
    """Print the marks of a folder; files that are refused are named on stderr, and make the exit code 1."""
    from pophood.cli.session import open_model
    from pophood.cli.terminal.progress import Waiting
    from pophood.course.classroom.marking import answer_files, marks
    from pophood.phrases import phrase

    answer_files(folder)  # one without answers is refused before a model is loaded
    lm = open_model(console, choice)
    with Waiting(console, phrase("computing the answers")) as waiting:
        marking = marks(folder, lm, waiting)
    console.out(marking.csv.rstrip("\n"))
    for line in (*marking.remarks, *marking.refused):
        console.say(f"pophood: {line}")
    return 1 if marking.refused else 0


def _write(console: Console, file: Path, text: str) -> None:
    from pophood import system
    from pophood.phrases import phrase

    system.atomic_write(file, text.encode("utf-8"))
    console.say(phrase("written: {file}", file=file))


def _check_mode(outputs: Mapping[str, object], walking: Mapping[str, object]) -> None:
    """Raise UsageError for options that make different things, or have no effect on what is made."""
    modes = [name for name, given in outputs.items() if given is not None]
    if len(modes) > 1:
        raise click.UsageError(f"{' and '.join(modes)} make different things: give one of them")
    idle = [name for name, given in walking.items() if given]
    if modes and idle:
        covers = "marks files of answers" if modes == ["--mark"] else "covers the whole course"
        raise click.UsageError(f"{modes[0]} {covers}; it takes no {', '.join(idle)}")
