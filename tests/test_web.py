"""Pages: text is escaped, control characters are visible, and the policy allows only the page itself."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from jinja2 import UndefinedError

from pophood.table import Table
from pophood.web import data_uri, grid, render_page, safe_html, visible

HOSTILE = '<script>alert(1)</script>"\x1b[31m\u202e'


def page(**values: Any) -> str:
    """Return the index page of `look all` without any view."""
    values = {"written": {}, "failed": {}, "facts": {}} | values
    return render_page("pophood.look.figures", "gallery", document=True, **values)


def test_text_is_escaped_and_control_characters_are_visible() -> None:
    text = page(title=HOSTILE, facts={"Model": HOSTILE}, failed={"next": HOSTILE})
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;&#34;\\x1b[31m\\u202e"
    assert text.count(shown) == 4, "the title, the heading, a fact and a reason"
    assert "<script>alert" not in text and "\x1b" not in text and "\u202e" not in text
    assert visible("a\tb\n\x00") == "a\tb\n\\x00"


def test_html_that_is_already_escaped_stays() -> None:
    assert "<b>bold</b>" in page(title="t", failed={"next": safe_html("<b>bold</b>")})


@pytest.mark.parametrize("document", [True, False])
def test_the_policy_allows_the_style_and_script_of_the_page_alone(document: bool) -> None:
    if document:
        text = page(title="t", images="'self' data:")
    else:
        text = render_page(
            "pophood.cli.page", title="t", images="", facts={}, prompt="", shades=(), outputs=[], data=""
        )
    match = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert match is not None
    wanted = ["default-src 'none'", *(["img-src 'self' data:"] if document else [])]
    for tag in ("style", "script"):
        inner = text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        wanted.append(f"{tag}-src 'sha256-{digest}'")
    assert match[1].split("; ") == [*wanted, "base-uri 'none'", "form-action 'none'"]


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="written"):
        render_page("pophood.look.figures", "gallery", document=True, title="t", facts={}, failed={})


def test_a_table_as_rows_of_cells() -> None:
    table = Table(("token_text", "share"), ((" a", 0.25), ("b", 2.0)), bars="share")
    assert grid(table, most=1) == {
        "head": [("token_text", False), ("share", True)],
        "rows": [[('" a"', False, None), ("0.2500", True, 0.25)]],
    }
    assert [row[1][2] for row in grid(table)["rows"]] == [0.25, 1.0], "a bar ends at 1"


def test_a_picture_as_an_address() -> None:
    assert base64.b64decode(data_uri(b"<svg/>").partition("base64,")[2]) == b"<svg/>"
