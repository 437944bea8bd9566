"""A strict reader of course files: a malformed page is a BadFile that names file and line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources.abc import Traversable
from typing import NoReturn

from pophood.course.markup import check_markup
from pophood.course.needs import NEEDS
from pophood.course.pages import GUESSES, HALVES, KINDS, SECTIONS, SLIDES, Cell, CellKind, Course, Page
from pophood.course.words import Words, folder_of, read_words
from pophood.errors import BadFile

CONTENTS = "contents.md"
PAGE_NAME = re.compile(r"(\d\d)-([a-z0-9-]+)\.md")
FENCE = "```"
MOST_COLUMNS = 100  # of a line of code, so that consoles and slides need not wrap it
# The first line of a fence -> the kind of its cell; guess and differs have a label.
PLAIN: dict[str, CellKind] = {
    "python run": "run",
    "python say": "say",
    "python check": "check",
    "sh": "sh",
    "hint": "hint",
    "notes": "notes",
    "text": "text",
    "formula": "formula",
}
LABELLED: dict[CellKind, tuple[str, ...]] = {"guess": GUESSES, "differs": tuple(KINDS)}
ALLOWED = {
    "lead": {"prose", "text"},
    "predict": {"prose", "text", "guess", "hint", "notes"},
    "run": {"prose", "run", "say", "sh", "differs", "notes"},
    "check": {"prose", "check"},
    "explain": {"prose", "say", "text", "formula", "differs", "notes"},
    "solution": {"prose", "text", "run", "sh", "differs"},
    "contents": {"prose"},
}
# Section -> kind -> (fewest, most) cells.
WANTED: dict[str, dict[CellKind, tuple[int, int]]] = {
    "predict": {"guess": (1, 1), "hint": (1, 9)},
    "run": {"run": (1, 9), "sh": (1, 9)},
    "check": {"check": (1, 1)},
    "explain": {"prose": (1, 99)},
}


def load_course(language: str = "en", folder: Traversable | None = None) -> Course:
    """Read every page of a language, or of a folder with the same layout. Takes about 10 ms.

    Raises BadInput for an unknown language, BadFile for a malformed page.
    """
    if folder is None:
        folder = folder_of(language)
    words = read_words(folder)
    texts = {entry.name for entry in folder.iterdir() if entry.name.endswith(".md")}
    names = sorted(texts - {CONTENTS})
    solutions = folder.joinpath("solutions")
    apart = sorted(entry.name for entry in solutions.iterdir()) if solutions.is_dir() else []
    pages = []
    for number, name in enumerate(names, 1):
        match = PAGE_NAME.fullmatch(name)
        if match is None or int(match[1]) != number:
            raise BadFile(f"{language}/{name}: wanted a name such as {number:02}-tokens.md, without gaps")
        if name not in apart:
            raise BadFile(f"{language}/{name}: has no solutions/{name}")
        text = folder.joinpath(name).read_text("utf-8")
        solution = solutions.joinpath(name).read_text("utf-8")
        pages.append(parse_page(f"{language}/{name}", text, solution, words))
    if stray := [name for name in apart if name not in names]:
        raise BadFile(f"{language}/solutions/{stray[0]}: there is no page of that name")
    if not pages:
        raise BadFile(f"{language}: has no pages")
    contents: tuple[Cell, ...] = ()
    if CONTENTS in texts:
        text = folder.joinpath(CONTENTS).read_text("utf-8")
        contents = _Reader(f"{language}/{CONTENTS}", text).titled("contents")
    return Course(language, linked(pages), words, contents)


def linked(pages: Sequence[Page]) -> tuple[Page, ...]:
    """Link each page to the earlier page that it continues. Raises BadFile if there is no such page."""
    continued = {page.continues for page in pages}
    done: list[Page] = []
    for page in pages:
        earlier = next((one for one in done if one.name == page.continues), None)
        if page.continues and (earlier is None or earlier.continues):
            raise BadFile(
                f"{page.path}: continues {page.continues!r}, wanted an earlier page that continues no other"
            )
        done.append(replace(page, earlier=earlier, kept=page.name in continued))
    return tuple(done)


def parse_page(path: str, text: str, solution: str, words: Words) -> Page:
    """Parse one page; `path` is ".../NN-name.md"."""
    folder, _, file = path.rpartition("/")
    number, _, name = file.removesuffix(".md").partition("-")
    reader = _Reader(path, text)
    talk, fields = reader.front_matter()
    title = reader.title()
    headings = [words[section] for section in SECTIONS]
    parts = dict(reader.sections(["lead", *SECTIONS], headings))
    for section, wanted in WANTED.items():
        for kind, (fewest, most) in wanted.items():
            n = sum(cell.kind == kind for cell in parts[section])
            if not fewest <= n <= most:
                amount = str(fewest) if fewest == most else f"{fewest} to {most}"
                raise BadFile(f"{path}: section {words[section]!r} has {n} {kind} cells, wanted {amount}")
    apart = _Reader(f"{folder}/solutions/{file}", solution).titled("solution")
    lead = parts.pop("lead")
    slides = int(fields["slides"] or SLIDES)
    runs = sum(cell.kind == "run" for cell in parts["run"])
    if slides > SLIDES + runs:
        raise BadFile(f"{path}: wants {slides} slides, but has {runs} run cells for those between two")
    needs, continues = fields["needs"], fields["continues"]
    return Page(int(number), name, title, talk, lead, parts, apart, path, words, needs, slides, continues)


class _Reader:
    """Reads one file line by line, and reports errors with their line number."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self._lines = text.splitlines()
        self._at = 0

    def fail(self, what: str, line: int | None = None) -> NoReturn:
        """Raise BadFile at a line, by default the one just read."""
        raise BadFile(f"{self.path}:{self._at if line is None else line}: {what}")

    def _next(self) -> str | None:
        if self._at == len(self._lines):
            return None
        self._at += 1
        return self._lines[self._at - 1]

    def front_matter(self) -> tuple[str, dict[str, str]]:
        """Read the talk's pages, and the fields `slides`, `needs` and `continues` ("" for one left out)."""
        if self._next() != "---":
            self.fail("a page begins with a line ---, then `talk: PAGES`, then ---", 1)
        line = self._next() or ""
        match = re.fullmatch(r"talk: (\d+(?:-\d+)?|none)", line)
        if match is None:
            self.fail(
                f"got {line!r}, wanted `talk: 16`, `talk: 16-17`, or `talk: none` for a page of our own"
            )
        line = self._next() or ""
        wanted = {"slides": "[3-9]", "needs": "|".join(NEEDS), "continues": "[a-z0-9-]+"}
        fields = dict.fromkeys(wanted, "")
        for key, value in wanted.items():
            if more := re.fullmatch(rf"{key}: ({value})", line):
                fields[key], line = more[1], self._next() or ""
        if line != "---":
            self.fail(
                "wanted --- after the page of the talk, or `slides: 3` (at most 9), "
                "or `needs: torch`, or `continues: NAME`"
            )
        return "" if match[1] == "none" else match[1], fields

    def title(self) -> str:
        line = self._next()
        while line == "":
            line = self._next()
        if line is None or not line.startswith("# ") or not line[2:].strip():
            self.fail(f"got {line!r}, wanted a title such as `# From text to tokens`")
        return line[2:].strip()

    def titled(self, name: str) -> tuple[Cell, ...]:
        """Read a file that is a title and one part."""
        self.title()
        return dict(self.sections([name], []))[name]

    def sections(self, names: list[str], headings: list[str]) -> Iterator[tuple[str, tuple[Cell, ...]]]:
        """Yield (name, cells) of each part; a part ends at the next heading."""
        for name, heading in zip(names, [*headings, None], strict=True):
            cells = []
            for cell in self._cells(heading):
                if cell.kind not in ALLOWED[name]:
                    self.fail(f"a {cell.kind} cell does not belong in the part {name!r}", cell.line - 1)
                cells.append(cell)
            yield name, tuple(cells)

    def _cells(self, until: str | None) -> Iterator[Cell]:
        prose: list[str] = []
        begin = self._at + 1
        while (line := self._next()) is not None:
            heading = line.startswith("#")
            if not heading and not line.startswith(FENCE):
                prose.append(line)
                continue
            yield from self._prose(prose, begin)
            prose = []
            if heading:
                if line == f"## {until}":
                    return
                self.fail(f"got the heading {line!r}, wanted {'none' if until is None else f'## {until}'!r}")
            yield self._fenced(line.removeprefix(FENCE))
            begin = self._at + 1
        yield from self._prose(prose, begin)
        if until is not None:
            self.fail(f"the page ends without its section {f'## {until}'!r}")

    def _prose(self, lines: list[str], begin: int) -> Iterator[Cell]:
        text = "\n".join(lines)
        if text.strip():
            skipped = len(text) - len(text.lstrip("\n"))
            for offset, complaint in check_markup(text.strip("\n")):
                self.fail(complaint, begin + skipped + offset)
            yield Cell("prose", text.strip("\n"), begin + skipped)

    def _fenced(self, info: str) -> Cell:
        begin = self._at
        kind, label = self._kind(info)
        lines = []
        while (line := self._next()) != FENCE:
            if line is None:
                self.fail("this fence is never closed", begin)
            lines.append(line)
        text = "\n".join(lines)
        if not text.strip():
            self.fail("this cell is empty", begin)
        if kind == "formula" and text.split("\n").count(HALVES) != 1:
            self.fail(f"a formula is plain text, a line {HALVES}, then the formula as TeX", begin)
        if kind in ("run", "say", "check", "sh", "text"):
            for number, line in enumerate(lines, begin + 1):
                if len(line) > MOST_COLUMNS:
                    self.fail(
                        f"{len(line)} characters, wanted at most {MOST_COLUMNS} in a line of code", number
                    )
        if kind in ("run", "say", "check"):
            self._check_python(text, begin, ends_in_value=kind != "run")
        elif kind not in ("sh", "text", "formula"):
            for offset, complaint in check_markup(text):
                self.fail(complaint, begin + 1 + offset)
        return Cell(kind, text, begin + 1, label)

    def _kind(self, info: str) -> tuple[CellKind, str]:
        if info in PLAIN:
            return PLAIN[info], ""
        word, _, label = info.partition(" ")
        kind = next((kind for kind in LABELLED if kind == word), None)
        if kind is None:
            self.fail(f"there is no cell {info!r}; the cells are: {', '.join([*PLAIN, *LABELLED])}")
        if label not in LABELLED[kind]:
            self.fail(f"got {info!r}, wanted `{word}` with one of: {', '.join(LABELLED[kind])}")
        return kind, label

    def _check_python(self, text: str, begin: int, *, ends_in_value: bool) -> None:
        try:
            body = ast.parse(text).body
        except SyntaxError as error:
            self.fail(f"this is not Python: {error.msg}", begin + (error.lineno or 1))
        if ends_in_value and not (body and isinstance(body[-1], ast.Expr)):
            self.fail("this cell must end with an expression: the right answer, or the text to say", begin)
