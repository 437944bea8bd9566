"""Course, Page, Cell: the course as frozen data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pophood.config import ModelConfig
from pophood.course.words import Words

SECTIONS = ("predict", "run", "check", "explain")
GUESSES = ("number", "text", "yes-no")
SLIDES = 2  # slides of a page whose front matter says nothing else
HALVES = "---"  # the line of a formula cell between plain text and TeX
CellKind = Literal[
    "prose", "guess", "hint", "run", "say", "sh", "check", "differs", "formula", "notes", "text"
]

# KIND of a ```differs KIND``` cell -> a function that returns whether the cell applies to a model.
KINDS: dict[str, Callable[[ModelConfig], bool]] = {
    "learned-positions": lambda config: config.rope is None,
    "rotary": lambda config: config.rope is not None,
    "layer-norm": lambda config: config.norm == "layer",
    "rms-norm": lambda config: config.norm == "rms",
    "plain-mlp": lambda config: not config.gated_mlp,
    "gated-mlp": lambda config: config.gated_mlp,
    "grouped-query": lambda config: config.n_kv_head < config.n_head,
    "untied-output": lambda config: not config.tied_output,
    "other-family": lambda config: config.architecture != "gpt2",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of a page: prose or a fenced cell. `label`: a guess's form, or the KIND of a differs cell."""

    kind: CellKind
    text: str
    line: int  # of its first line of text
    label: str = ""

    @property
    def formula(self) -> tuple[str, str]:
        """The formula as plain text and as TeX, the two halves of a formula cell."""
        plain, _, tex = self.text.partition(f"\n{HALVES}\n")
        return plain, tex

    def applies(self, config: ModelConfig) -> bool:
        """Return True if this cell is shown for such a model."""
        return self.kind != "differs" or KINDS[self.label](config)


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `sections` holds the cells of the four SECTIONS, `lead` the cells before them."""

    number: int
    name: str  # the file's name without its number and suffix
    title: str
    talk: str  # pages of the talk: "16-17"; "" for an additional page
    lead: tuple[Cell, ...]
    sections: Mapping[str, tuple[Cell, ...]]
    solution: tuple[Cell, ...]
    path: str  # for error messages
    words: Words = field(repr=False, compare=False)  # the phrases of its language
    needs: str = ""  # a key of needs.NEEDS, or ""; the cells do not run without it
    slides: int = SLIDES  # in the deck
    continues: str = ""  # the name of the earlier page whose variables it uses
    earlier: Page | None = None  # that page
    kept: bool = False  # True if a later page uses its variables

    def cells(self, kind: CellKind, section: str | None = None) -> Iterator[Cell]:
        """Yield the cells of one kind in order, of one section or of all."""
        for name, cells in self.sections.items():
            if section in (None, name):
                yield from (cell for cell in cells if cell.kind == kind)

    @property
    def guess(self) -> Cell:
        """The question to the reader."""
        return next(self.cells("guess"))

    @property
    def check(self) -> Cell:
        """The code that computes the answer."""
        return next(self.cells("check"))

    @property
    def hints(self) -> tuple[Cell, ...]:
        """The hints for the question, from the vaguest to the most explicit."""
        return tuple(self.cells("hint"))


@dataclass(frozen=True, slots=True)
class Course:
    """All pages in one language in the talk's order, and the phrases that the players use (`words.toml`)."""

    language: str
    pages: tuple[Page, ...]
    words: Words
    contents: tuple[Cell, ...] = ()  # the talk's table of contents, with the course pages for each part

    def place(self, page: Page) -> str:
        """Return a page's origin: "the talk, page 16-17", or the phrase for an additional page."""
        return self.words["talk_page"].format(talk=page.talk) if page.talk else self.words["own_page"]

    @property
    def title(self) -> str:
        """The title of the course."""
        return self.words["title"]
