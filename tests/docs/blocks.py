"""The fenced blocks of the project's pages: README.md, docs/, CONTRIBUTING.md, SECURITY.md, forms of .github.

Pages of the course are no part of it: tests/course runs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tests.conftest import ROOT
from tests.contracts.sources import tracked_files

FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<kind>[^\n]*)\n(?P<text>.*?)^(?P=fence) *$", re.MULTILINE | re.DOTALL
)
NO_PAGES = ("tests", "src")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `kind` is the word behind the fence."""

    page: str
    line: int
    kind: str
    text: str

    def named(self, name: str) -> bool:
        """Compare with a name in a table: a kind, then a part of the text, which a kind alone leaves open.

        >>> block = Block("a.md", 1, "sh", "ls --all\\n")
        >>> block.named("sh"), block.named("sh --all"), block.named("sh rm"), block.named("python")
        (True, True, False, False)
        """
        kind, _, part = name.partition(" ")
        return self.kind == kind and part in self.text

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.kind}: {self.text.strip()[:50]!r})"


def blocks_of(text: str, page: str) -> tuple[Block, ...]:
    """Return the blocks of a page's text, in order.

    >>> [str(block) for block in blocks_of("# A\\n\\n```sh\\nls\\n```\\n", "a.md")]
    ["a.md:3 (sh: 'ls')"]
    """
    return tuple(
        Block(page, text.count("\n", 0, found.start()) + 1, found["kind"].strip(), found["text"])
        for found in FENCE.finditer(text)
    )


@cache
def all_blocks() -> tuple[Block, ...]:
    """Return every block of every page."""
    pages = [path.relative_to(ROOT) for path in tracked_files() if path.suffix == ".md"]
    return tuple(
        block
        for page in sorted(pages)
        if page.parts[0] not in NO_PAGES
        for block in blocks_of((ROOT / page).read_text(encoding="utf-8"), page.as_posix())
    )
