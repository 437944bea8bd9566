"""Course, Page, Cell: the course as frozen data, and which models a remark is about. No files, no running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pophood.config import ModelConfig

SECTIONS = ("predict", "run", "check", "explain")
GUESSES = ("number", "text", "yes-no")
HALVES = "---"  # the line of a formula cell between plain text and TeX
CellKind = Literal[
    "prose", "guess", "hint", "run", "say", "sh", "check", "differs", "formula", "notes", "text"
]

# What a ```differs KIND``` cell can be about: the real architectural choices in which models part from GPT-2.
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
    """One piece of a page: prose, or a fenced cell; `label` is a guess's form or a remark's kind of model."""

    kind: CellKind
    text: str
    line: int  # of its first line of text
    label: str = ""

    @property
    def formula(self) -> tuple[str, str]:
        """A formula as plain text and as TeX, the two halves of a formula cell."""
        plain, _, tex = self.text.partition(f"\n{HALVES}\n")
        return plain, tex

    def applies(self, config: ModelConfig) -> bool:
        """Whether it is to be shown for such a model."""
        return self.kind != "differs" or KINDS[self.label](config)


@dataclass(frozen=True, slots=True)
class Page:
    """One page: `sections` has the four of SECTIONS, `lead` what stands before them."""

    number: int
    name: str  # the file's, without its number and ending
    title: str
    talk: str  # pages of the talk: "16-17"; "" for a page of our own
    lead: tuple[Cell, ...]
    sections: Mapping[str, tuple[Cell, ...]]
    solution: tuple[Cell, ...]
    path: str  # for messages
    needs: str = ""  # one of needs.NEEDS, without which its cells are not run
    continues: str = ""  # the name of the earlier page whose names its cells go on with
    earlier: Page | None = None  # that page
    kept: bool = False  # whether a later page goes on with its names

    def cells(self, kind: CellKind, section: str | None = None) -> Iterator[Cell]:
        """The cells of one kind, in order, of one section or all."""
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
        """What helps with the question, the gentlest first."""
        return tuple(self.cells("hint"))


@dataclass(frozen=True, slots=True)
class Course:
    """All pages of one language in the talk's order, and the words that its player needs (`words.toml`)."""

    language: str
    pages: tuple[Page, ...]
    words: Mapping[str, str]
    contents: tuple[Cell, ...] = ()  # the talk's table of contents, with our pages beside it

    def place(self, page: Page) -> str:
        """Where a page comes from: "the talk, page 16-17", or the words for a page of our own."""
        return self.words["talk_page"].format(talk=page.talk) if page.talk else self.words["own_page"]

    @property
    def title(self) -> str:
        """The course's own title."""
        return self.words["title"]
