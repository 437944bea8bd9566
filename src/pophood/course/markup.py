r"""The subset of Markdown for pages, and its HTML: paragraphs, lists, tables, marks inside a line.

    - item      | a | b |      `code`  **strong**  *emphasis*  [words](address)

All other text, raw HTML included, is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token


def check_markup(text: str) -> Iterator[tuple[int, str]]:
    """Yield every violation of the rules as (line from 0, complaint)."""
    for number, line in enumerate(text.split("\n")):
        marked = "`" in line or "**" in line  # parse no other lines: loading the course stays fast
        rest = "".join(token.content for token in _inline(line) if token.type == "text") if marked else ""
        if "`" in rest:
            yield number, "a backtick without its partner on the same line"
        if "**" in rest:
            yield number, "** without its partner on the same line"
        if line.startswith(("> ", "* ", "+ ", "\t", "    ")) or re.match(r"\d+\. ", line):
            yield number, f"{line[:12]!r} begins something other than a paragraph, a list or a table"
        if line.startswith("|") and not line.rstrip().endswith("|"):
            yield number, "a row of a table ends with |"
    for token in _parser().parse(text) if "|" in text else ():
        if token.type == "inline" and token.map and token.content.startswith("|"):
            yield token.map[0], "a table needs a line such as |---|---| below its first row"


def to_html(text: str) -> str:
    """Return the HTML of a text.

    >>> to_html("One **two**.")
    '<p>One <strong>two</strong>.</p>'
    """
    tokens = _parser().parse(text)
    _set_attributes(tokens)
    html: str = _parser().renderer.render(tokens, _parser().options, {})
    return html.strip()


def plain(text: str) -> str:
    """Return the text without its marks, for labels and titles.

    >>> plain("see `lm` in [the page](a.md)")
    'see lm in the page'
    """
    return "".join(token.content for token in _inline(text))


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("zero").enable(["backticks", "emphasis", "link", "list", "table"])


def _inline(text: str) -> list[Token]:
    return _parser().parseInline(text)[0].children or []


def _set_attributes(tokens: Iterable[Token]) -> None:
    """Mark column headings for screen readers, drop the alignment of cells, let links send no referrer."""
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            token.attrs = {"scope": "col"} if token.type == "th_open" else {}
        if token.type == "link_open":
            token.attrSet("rel", "noreferrer")
        _set_attributes(token.children or ())
