"""`pophood talk`: runs the course page by page at a terminal, or writes its notebook or its slides."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.options.shared import ModelChoice, model_options, output_option, text_option, verb
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.course import Course
    from pophood.model.lm import LM


@verb()
@text_option("--page", type=click.IntRange(1), help="Show page N only.")
@text_option("--from", "start", type=click.IntRange(1), help="Begin at page N.")
@text_option("--list", "listing", is_flag=True, help="List the pages, and load no model.")
@text_option("--yes", is_flag=True, help="Ask nothing: run every page to the end.")
@text_option("--notes", is_flag=True, help="Show the notes for the teacher too.")
@text_option("--language", default="en", metavar="CODE", help="The language.")
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
@functools.partial(model_options, precision="f32")
def talk_command(
    console: Console,
    page: int | None,
    start: int | None,
    listing: bool,
    yes: bool,
    notes: bool,
    language: str,
    notebook: Path | None,
    slides: Path | None,
    choice: ModelChoice,
) -> int:
    """Take the course: the talk, page by page, live from the model.

    Each page asks for a guess, runs, checks the guess against the model, and explains. At a question, ?
    gives a hint; at the end of a page, Enter goes on, b back, q leaves. Through a pipe each line of stdin is
    an answer, and without any (or with --yes) the course runs from start to end.

    Example: pophood talk -m smollm2

    Example: pophood talk --slides talk.html
    """
    from pophood.course import load_course
    from pophood.system import check_writable_target

    if page is not None and start is not None:
        raise click.UsageError("--page shows one page and --from begins at one: give one of them")
    _check_mode(listing, notebook, slides, page or start, yes, notes)
    course = load_course(language)
    pages = len(course.pages)
    if (asked := page or start or 1) > pages:
        raise BadInput(f"there is no page {asked}: there are 1 to {pages} (`pophood talk --list`)")
    if listing:
        from pophood.cli.screens.course_player import contents

        console.out(contents(course))
        return 0
    for target in (notebook, slides):
        if target is not None:
            check_writable_target(target)
    if notebook is not None:
        from pophood.course.notebook import notebook_json

        _write(console, notebook, notebook_json(course))
        return 0
    from pophood.cli.session import open_model, this_command

    lm = open_model(console, choice)
    if slides is not None:
        _write(console, slides, _deck(console, course, lm, choice.name or ""))
        return 0
    from pophood.cli.screens.course_player import Walk

    last = page if page is not None else pages
    spoken = "" if language == "en" else f" --language {language}"
    command = f"{this_command()} talk{spoken}{choice.typed('f32')}"
    return Walk(console, course, lm, asked, last, command, choice.name or "", not yes, notes).run()


def _deck(console: Console, course: Course, lm: LM, model: str) -> str:
    """Make the slides, with a progress bar by pages."""
    from pophood.cli.terminal.progress import Waiting
    from pophood.course.deck import deck_html

    with Waiting(console, "making the slides") as waiting:

        def announce(done: int, pages: int, title: str) -> None:
            waiting(done, pages)
            console.detail(f"{done + 1}/{pages} {title}")

        return deck_html(course, lm, model, announce)


def _write(console: Console, file: Path, text: str) -> None:
    from pophood import system

    system.atomic_write(file, text.encode("utf-8"))
    console.say(f"written: {file}")


def _check_mode(
    listing: bool, notebook: Path | None, slides: Path | None, place: int | None, yes: bool, notes: bool
) -> None:
    """Raise UsageError for options that have no effect with --list, --notebook or --slides."""
    outputs = {"--list": listing, "--notebook": notebook is not None, "--slides": slides is not None}
    modes = [name for name, given in outputs.items() if given]
    if len(modes) > 1:
        raise click.UsageError(f"{' and '.join(modes)} make different things: give one of them")
    walking = {"--page or --from": place is not None, "--yes": yes, "--notes": notes}
    idle = [name for name, given in walking.items() if given]
    if modes and idle:
        raise click.UsageError(f"{modes[0]} covers the whole course; it takes no {', '.join(idle)}")
