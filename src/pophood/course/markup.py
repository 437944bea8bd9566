r"""The subset of Markdown for pages, and its HTML: paragraphs, lists, tables, marks inside a line.

    - item      | a | b |      `code`  **strong**  *emphasis*  [words](address)

All other text, raw HTML included, is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`|\*\*(?P<strong>[^*\n]+)\*\*|\*(?P<em>[^*\s][^*\n]*)\*"
    r"|\[(?P<words>[^\]\n]+)\]\((?P<address>[^)\s]+)\)"
)
RULE = re.compile(r"\|(?: ?:?-+:? ?\|)+")


def check_markup(text: str) -> Iterator[tuple[int, str]]:
    """Yield every violation of the rules as (line from 0, complaint)."""
    for number, line in enumerate(text.split("\n")):
        rest = INLINE.sub("", line)
        if "`" in rest:
            yield number, "a backtick without its partner on the same line"
        if "**" in rest:
            yield number, "two stars without their partners on the same line"
        if line.startswith(("> ", "* ", "+ ", "\t", "    ")) or re.match(r"\d+\. ", line):
            yield number, f"{line[:12]!r} begins no paragraph, list or table that is known here"
        if line.startswith("|") and not line.rstrip().endswith("|"):
            yield number, "a row of a table ends with |"


def to_html(text: str) -> str:
    """Return the HTML of a text.

    >>> to_html("One **two**.")
    '<p>One <strong>two</strong>.</p>'
    """
    return "\n".join(_block(block.split("\n")) for block in re.split(r"\n{2,}", text.strip("\n")))


def inline_html(text: str) -> str:
    """Return the HTML of the marks inside one paragraph.

    >>> inline_html("`a<b` and *c*")
    '<code>a&lt;b</code> and <em>c</em>'
    """
    parts, at = [], 0
    for match in INLINE.finditer(text):
        parts.append(html.escape(text[at : match.start()]))
        parts.append(_marked(match))
        at = match.end()
    return "".join(parts) + html.escape(text[at:])


def plain(text: str) -> str:
    """Return the text without its marks, for labels and titles.

    >>> plain("see `lm` in [the page](a.md)")
    'see lm in the page'
    """
    return INLINE.sub(lambda match: next(group for group in match.groups() if group is not None), text)


def _marked(match: re.Match[str]) -> str:
    if match["code"] is not None:
        return f"<code>{html.escape(match['code'])}</code>"
    if match["words"] is not None:
        address, words = html.escape(match["address"]), inline_html(match["words"])
        return f'<a href="{address}" rel="noreferrer">{words}</a>'
    kind = "strong" if match["strong"] is not None else "em"
    return f"<{kind}>{inline_html(match[kind])}</{kind}>"


def _block(lines: list[str]) -> str:
    if lines[0].startswith("|"):
        return _table(lines)
    if not lines[0].startswith("- "):
        return f"<p>{inline_html(' '.join(line.strip() for line in lines))}</p>"
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += " " + line.strip()
    return "<ul>" + "".join(f"<li>{inline_html(item)}</li>" for item in items) + "</ul>"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    body = rows[2:] if len(lines) > 1 and RULE.fullmatch(lines[1].strip()) else rows
    head = rows[0] if body is not rows else []
    top = "".join(f'<th scope="col">{inline_html(cell)}</th>' for cell in head)
    inner = "".join(
        "<tr>" + "".join(f"<td>{inline_html(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table>{f'<thead><tr>{top}</tr></thead>' if head else ''}<tbody>{inner}</tbody></table>"
