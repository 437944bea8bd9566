"""The course as a Jupyter notebook without outputs; writing it needs no model and is reproducible.

It is written as plain JSON (nbformat 4.5), so that no notebook library is needed; a test reads it with
nbformat and runs it from start to end. Every cell has a slide type for RISE and `nbconvert --to slides`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from pophood.course.lesson import split_last
from pophood.course.pages import SECTIONS, Cell, Course, Page
from pophood.course.words import USUAL

Slide = Literal["slide", "subslide", "fragment", "notes", "skip", "-"]
FIRST_CELL = """\
import os

import pophood
from pophood import look
from pophood.course import {names}

{speak}MODEL = os.environ.get("POPHOOD_MODEL") or "{model}"  # {other_models}
lm = pophood.load(MODEL, precision="f32")  # {every_bit}
lm"""


def notebook_json(course: Course, model: str = "gpt2") -> str:
    """Return the whole notebook as the text of its file; `model` is the one of its first cell."""
    cells = [*_opening(course, model), *(cell for page in course.pages for cell in _page(course, page))]
    book = {
        "cells": cells,
        "metadata": {
            "celltoolbar": "Slideshow",
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "title": course.title,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _opening(course: Course, model: str) -> Iterator[dict[str, Any]]:
    words = course.words
    yield _markdown("title", f"# {course.title}\n\n{words['subtitle']}", "slide")
    yield _markdown("how", words["notebook_how"], "notes")
    if course.contents:
        text = "\n\n".join(_prose(course, cell) for cell in course.contents)
        yield _markdown("contents", f"## {words['contents']}\n\n{text}", "slide")
    yield _code("model", _first_cell(course, model), "subslide")


def _first_cell(course: Course, model: str) -> str:
    """Return the code that loads the model; another language than English says which one it is."""
    usual = course.language == USUAL
    return FIRST_CELL.format(
        model=model,
        names="check, need, say" if usual else "in_language, say",
        speak="" if usual else f'check, need = in_language("{course.language}")\n',
        other_models=course.words["notebook_models"],
        every_bit=course.words["notebook_precision"],
    )


def _page(course: Course, page: Page) -> Iterator[dict[str, Any]]:
    words, mark = course.words, f"page-{page.number:02}"
    number = words["page"].format(number=page.number, pages=len(course.pages), title=page.title)
    lead = "\n\n".join(_prose(course, cell) for cell in page.lead)
    yield _markdown(mark, _joined([f"## {number}", f"*{course.place(page)}*", lead]), "slide")
    for section in SECTIONS:
        yield from _section(course, page, section, f"{mark}-{section}")
    for i, cell in enumerate(page.cells("notes"), 1):
        yield _markdown(f"{mark}-notes-{i}", f"**{words['notes']}:** {cell.text}", "notes")


def _section(course: Course, page: Page, section: str, mark: str) -> Iterator[dict[str, Any]]:
    """Yield a section's cells: text up to the next code cell is joined into one Markdown cell."""
    texts = [f"### {course.words[section]}"]
    slide: Slide = "-" if section == "predict" else "subslide"
    number = 0
    for cell in page.sections[section]:
        if cell.kind == "notes":
            continue
        if cell.kind not in SOURCES:
            texts.append(_prose(course, cell))
            continue
        if texts:
            yield _markdown(f"{mark}-{number}", _joined(texts), slide)
            texts, slide = [], "-"
        number += 1
        yield _code(f"{mark}-code-{number}", SOURCES[cell.kind](cell.text), slide, page.needs)
    if texts:
        yield _markdown(f"{mark}-{number}-end", _joined(texts), slide)
    if section == "predict":
        form = course.words[f"form_{page.guess.label}"]
        yield _code(f"{mark}-guess", f'guess = ""  # {course.words["your_guess"]}: {form}', "-")


def _prose(course: Course, cell: Cell) -> str:
    words = course.words
    if cell.kind == "guess":
        return f"**{_one_line(cell.text)}**"
    if cell.kind == "hint":
        return f"<details><summary>{words['hint']}</summary>\n\n{cell.text}\n\n</details>"
    if cell.kind == "differs":
        return f"> **{words[f'kind_{cell.label}'].strip()}** {_one_line(cell.text)}"
    if cell.kind == "sh":
        return f"{words['same_command']}\n\n```sh\n{cell.text}\n```"
    if cell.kind == "formula":
        return f"$$\n{cell.formula[1]}\n$$"
    return f"```text\n{cell.text}\n```" if cell.kind == "text" else cell.text


def _called(function: str, source: str, *arguments: str) -> str:
    """Return a cell's code with a call around its last expression."""
    before, last = split_last(source)
    if "\n" not in last:
        return f"{before}\n{function}({', '.join([*arguments, last])})".lstrip("\n")
    lines = "".join(f"    {line}\n" for line in [*(f"{name}," for name in arguments), *last.split("\n")])
    return f"{before}\n{function}(\n{lines.rstrip()},\n)".lstrip("\n")


# Kind of a code cell -> a function that returns its code in the notebook.
SOURCES: dict[str, Callable[[str], str]] = {
    "run": str,
    "say": lambda source: _called("say", source),
    "check": lambda source: _called("check", source, "guess"),
}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _markdown(name: str, text: str, slide: Slide) -> dict[str, Any]:
    return _cell("markdown", name, text, slide)


def _code(name: str, text: str, slide: Slide, needs: str = "") -> dict[str, Any]:
    """Return a code cell. One with a requirement checks it first; its failure does not stop a full run."""
    source = f'need("{needs}")\n{text}' if needs else text
    cell = _cell("code", name, source, slide) | {"execution_count": None, "outputs": []}
    if needs:
        cell["metadata"]["tags"] = ["raises-exception"]
    return cell


def _cell(kind: str, name: str, text: str, slide: Slide) -> dict[str, Any]:
    metadata = {"slideshow": {"slide_type": slide}}
    return {"cell_type": kind, "id": name, "metadata": metadata, "source": text.splitlines(keepends=True)}
