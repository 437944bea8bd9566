"""HTML pages: one base template, one style sheet and one security policy behind all of them.

A page is one file that needs no network. The package that owns it holds a Jinja template NAME.html, and may
hold NAME.css and NAME.js. The template extends `base.html`, or `document.html` for a page to read from top to
bottom. Text is escaped automatically; control characters become visible escapes. Scripts that draw are built
from studio/pages into web/dist by `make studio`; a checkout without them writes plain pictures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from pophood.table import Table

# Control characters, which HTML cannot hold, and those that reorder text.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def render_page(
    package: str,
    name: str = "page",
    *,
    title: str,
    document: bool = False,
    language: str = "en",
    images: str = "data:",
    drawn: str | None = None,
    **values: Any,
) -> str:
    """Return a whole page: the template `name`.html of `package`, filled with `values`.

    `document` says that the template extends document.html, whose style and script are then included.
    `images` lists the sources of images in the page's policy. Nothing else may be loaded, and only the page's
    own style and script are allowed, by their hashes. `drawn` names a built script, which is added to them.

        render_page("pophood.look.figures", "gallery", document=True, title="gpt2", facts=facts, ...)
    """
    shared = ("base", "document") if document else ("base",)
    style = "".join(_read(__name__, f"{sheet}.css") for sheet in shared) + _read(package, f"{name}.css")
    scripts = (_read(__name__, "document.js") if document else "", _read(package, f"{name}.js"))
    script = "".join((*scripts, (drawn and built_script(drawn)) or ""))
    return (
        _environment()
        .get_template(f"{package}/{name}.html")
        .render(
            title=title,
            language=language,
            style=safe_html(style),
            script=safe_html(script),
            policy=safe_html(_policy(style, script, images)),
            **values,
        )
    )


def built_script(name: str) -> str | None:
    """Return a script that `make studio` has built from studio/pages; None where it has not run."""
    return _read(__name__, f"dist/{name}.js") or None


def json_block(value: object) -> Markup:
    """Return JSON for a `<script type="application/json">`: nothing in it can end the element.

    >>> print(json_block(["</script>"]))
    ["\\u003c/script>"]
    """
    return safe_html(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def safe_html(text: str) -> Markup:
    """Mark text as HTML that is already escaped."""
    from markupsafe import Markup

    return Markup(text)


def data_uri(svg: bytes) -> str:
    """Return an SVG picture as the address of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def visible(text: str) -> str:
    r"""Write the characters that HTML cannot show as escapes.

    >>> visible("a\x1b[0m")
    'a\\x1b[0m'
    """
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def grid(table: Table, most: int | None = None) -> dict[str, Any]:
    """Return a table's first `most` rows as (text, whether a number, length of the bar or None) per cell."""
    numeric = [table.numeric(column) for column in range(len(table.columns))]
    rows = range(len(table) if most is None else min(len(table), most))
    return {
        "head": list(zip(table.headings, numeric, strict=True)),
        "rows": [
            [
                (text, number, table.share(row) if column == table.bars else None)
                for text, number, column in zip(table.cells(row), numeric, table.columns, strict=True)
            ]
            for row in rows
        ],
    }


def _policy(style: str, script: str, images: str) -> str:
    """Return the content security policy: no network, and no style or script but these two."""
    sources = [f"img-src {images}"] if images else []
    sources += [
        f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("style", style), ("script", script))
        if text
    ]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", "form-action 'none'"])


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda path: _read(*path.split("/")) or None),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["grid"] = grid
    return environment


@cache
def _read(package: str, name: str) -> str:
    """Return the text of a package's file, or "" if it has none of that name."""
    file = files(package).joinpath(name)
    return file.read_text("utf-8") if file.is_file() else ""
