"""A view as one record of plain values, for other programs: words, figures, tables, how to repeat it.

It is what the studio shows; nothing in it is markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pophood import look
from pophood.errors import BadInput
from pophood.look.data import figures_data
from pophood.look.forms import FORMS
from pophood.look.view import View
from pophood.model.lm import LM
from pophood.table import Table

MOST_ROWS = 500  # of each table


def answer(
    lm: LM, name: str, text: str | Sequence[int] | None, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Compute a view by its name and return it as plain values. `text` is words or token ids.

    Raises BadInput for an unknown name or option, and what the view's function raises.

        answer(lm, "next", "The capital of Spain is", {"k": 5})["tables"][0]["rows"]
    """
    if (form := FORMS.get(name)) is None:
        raise BadInput(f"no view is called {name[:80]!r}; the views are {', '.join(FORMS)}")
    given = form.checked(options or {})
    if form.needs_text != (text is not None):
        wanted = "needs a text" if form.needs_text else "is of the model alone: leave the text out"
        raise BadInput(f"the view {name} {wanted}")
    if text is not None and not len(text):
        raise BadInput("the text is empty: give at least one word")
    texts = [] if text is None else [text if isinstance(text, str) else list(text)]
    return record(getattr(look, name)(lm, *texts, **given))


def record(view: View) -> dict[str, Any]:
    """Return a view as plain values."""
    figures = figures_data(view)
    tables = [table_data(title, table) for title, table in view.tables().items()]
    return {
        "view": view.name,
        "title": view.title,
        "caption": view.alt,
        "notes": list(view.notes),
        "precision": view.source.precision,
        "tokens": [{"id": i, "text": t} for i, t in zip(view.source.ids, view.source.tokens, strict=True)],
        "figure": figures[0],
        "figures": figures,
        "table": tables[0] if tables else None,
        "tables": tables,
        "command": view.shell_command(),
        "python": view.python_code(),
    }


def table_data(name: str, table: Table) -> dict[str, Any]:
    """Return a table as plain values, long ones cut; NaN becomes null."""
    rows = [[_finite(value) for value in row] for row in table.rows[:MOST_ROWS]]
    return {
        "name": name,
        "title": table.title,
        "columns": list(table.headings),
        "rows": rows,
        "left_out": max(len(table) - MOST_ROWS, 0),
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
