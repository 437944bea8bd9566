"""A learner's answers as a JSON file. The form is described in docs/course.md.

The file comes back to the teacher from other machines, so it is read strictly and within a bound: a file that
`pophood talk --answers` could not have written, apart from its `name`, is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pophood.course.answers import JUDGED, Verdict, readable
from pophood.course.pages import Course, Page
from pophood.course.parse import load_course
from pophood.course.words import languages
from pophood.errors import BadFile, short
from pophood.formats.json_file import read_json
from pophood.phrases import later, phrase
from pophood.system import atomic_write

FORMAT = "pophood answers 1"
ADVICE = later("name a file that `pophood talk --answers` has written, or a new one")
MOST_BYTES = 256 << 10
MOST_CHARACTERS = 200  # of a guess, an answer and a name
FIELDS = {"format", "language", "model", "name", "pages"}
TEXTS = ("guess", "judged", "answer")  # of a page


@dataclass(frozen=True, slots=True)
class Answered:
    """A guess, the verdict on it, and the answer that the learner's model gave."""

    guess: str
    judged: str
    answer: str


@dataclass(slots=True)
class LearnerFile:
    """The answers of one learner: page name -> what was answered."""

    path: Path
    language: str
    model: str = ""  # the name of the model that they were checked with
    name: str = ""  # of the learner, if somebody wrote it into the file
    pages: dict[str, Answered] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> LearnerFile:
        """Read a file. Raises NotFound, and BadFile with the file's name in one line."""
        return _LearnerFileReader(path).file()

    @classmethod
    def opened(cls, path: Path, course: Course) -> LearnerFile:
        """Read a file, or begin one. Raises BadFile if it belongs to another language."""
        if not path.exists() and not path.is_symlink():
            return cls(path, course.language)
        kept = cls.read(path)
        if kept.language != course.language:
            words = later(
                "{path}: has answers in the language {its!r}, and this course is in {here!r}: go on with"
                " --language {its}, or name another file"
            )
            raise BadFile(phrase(words, path=path, its=kept.language, here=course.language))
        return kept

    def guess(self, page: Page) -> str | None:
        """Return the guess on a page; None without one."""
        answered = self.pages.get(page.name)
        return None if answered is None else answered.guess

    def keep(self, page: Page, guess: str, verdict: Verdict) -> None:
        """Note a guess that was judged, and write the file."""
        if (line := _line(guess)) and verdict.judged in JUDGED:
            self.pages[page.name] = Answered(line, verdict.judged, _line(verdict.answer))
            self.write()

    def write(self) -> None:
        """Write the file. Whoever reads it meanwhile finds the old one or the new one."""
        content: dict[str, Any] = {"format": FORMAT, "language": self.language, "model": self.model}
        if self.name:
            content["name"] = self.name
        content["pages"] = {
            name: {text: getattr(answered, text) for text in TEXTS} for name, answered in self.pages.items()
        }
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        atomic_write(self.path, text.encode("utf-8"))

    def first_open(self, course: Course) -> int:
        """Return the number of the first page without an answer; 1 if all have one."""
        waiting = (page.number for page in course.pages if page.name not in self.pages)
        return next(waiting, 1)


class _LearnerFileReader:
    """Reads one file, and names it in every complaint."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _refuse(self, english: str, **fields: object) -> NoReturn:
        what = phrase(english, **fields)
        raise BadFile(f"{self._path}: {what}; {phrase(ADVICE)}")

    def file(self) -> LearnerFile:
        if self._path.is_file() and not self._path.stat().st_size:
            self._refuse(later("is empty, wanted a file of answers"))
        content = read_json(self._path, MOST_BYTES, ADVICE)
        if (form := content.get("format")) != FORMAT:
            words = later("is no file of answers: its format is {given}, wanted {wanted!r}")
            self._refuse(words, given=short(form), wanted=FORMAT)
        if strange := sorted(set(content) - FIELDS):
            words = later("has the field {given}, wanted only {wanted}")
            self._refuse(words, given=short(strange[0]), wanted=", ".join(sorted(FIELDS)))
        language = self._text(content, "language")
        if language not in languages():
            words = later("is in the language {given}, wanted one of the course's: {wanted}")
            self._refuse(words, given=short(language), wanted=", ".join(languages()))
        name = self._text(content, "name") if "name" in content else ""
        given = content.get("pages")
        if not isinstance(given, dict):
            self._refuse(later("its `pages` is {given}, wanted an object"), given=short(given))
        pages = self._pages(given, load_course(language))
        return LearnerFile(self._path, language, self._text(content, "model"), name, pages)

    def _pages(self, given: Mapping[str, Any], course: Course) -> dict[str, Answered]:
        known = {page.name: page for page in course.pages}
        found = {}
        for name, answered in given.items():
            if name not in known:
                self._refuse(later("has the page {given}, which the course lacks"), given=short(name))
            if not isinstance(answered, dict) or set(answered) != set(TEXTS):
                words = later("page {page!r} is {given}, wanted an object with {wanted}")
                self._refuse(words, page=name, given=short(answered), wanted=", ".join(TEXTS))
            guess, judged, answer = (self._text(answered, text) for text in TEXTS)
            if judged not in JUDGED:
                words = later("page {page!r}: judged is {given}, wanted {wanted}")
                self._refuse(words, page=name, given=short(judged), wanted=", ".join(JUDGED))
            form = known[name].guess.label
            if not guess.strip() or not readable(form, guess, course.words):
                words = later("page {page!r}: the guess is {given}, wanted {wanted}")
                self._refuse(words, page=name, given=short(guess), wanted=course.words[f"form_{form}"])
            found[name] = Answered(guess, judged, answer)
        return found

    def _text(self, values: Mapping[str, Any], name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str) or len(value) > MOST_CHARACTERS or not value.isprintable():
            words = later("{name} is {given}, wanted one line of at most {most} characters")
            self._refuse(words, name=name, given=short(value), most=MOST_CHARACTERS)
        return value


def _line(text: str) -> str:
    """Return a text as a file may have it: one line, without control characters, not too long."""
    return "".join(letter for letter in text.strip() if letter.isprintable())[:MOST_CHARACTERS].strip()
