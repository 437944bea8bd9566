"""Table: named columns and rows, shown as text or in a notebook, and written as CSV or JSON."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pophood.errors import NotFound
from pophood.phrases import heading, phrase

if TYPE_CHECKING:
    import pandas

BAR_WIDTH = 24  # characters, or tenths of an em in a notebook


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under column names. Texts show their spaces; `bars` names a column of 0..1 that is drawn as bars.

    >>> table = Table(("token_id", "token_text"), ((286, " of"),))
    >>> print(table)
    token_id  token_text
         286  " of"
    >>> table[0]["token_text"]
    ' of'
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    bars: str | None = None
    title: str = ""
    decimals: Mapping[str, int] = field(default_factory=dict)  # column -> decimal places; four for the others

    @property
    def headings(self) -> tuple[str, ...]:
        """The names of the columns as they are shown, in the language in use; files keep the names."""
        return tuple(map(heading, self.columns))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return map(self.__getitem__, range(len(self.rows)))

    def __getitem__(self, index: int) -> dict[str, object]:
        return dict(zip(self.columns, self.rows[index], strict=True))

    def column(self, name: str) -> list[object]:
        """Return the values of one column, top to bottom."""
        at = self.columns.index(name)
        return [row[at] for row in self.rows]

    def to_csv(self) -> str:
        """Return comma-separated values with a header line; floats keep every digit."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()

    def to_json(self) -> str:
        """Return a JSON list of objects, one per row."""
        return json.dumps(list(self), ensure_ascii=False)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a data frame; raises NotFound without pandas."""
        try:
            import pandas
        except ImportError:
            advice = "`pip install pandas` brings it; to_csv needs nothing"
            raise NotFound(f"pandas is not installed: {advice}") from None
        return pandas.DataFrame(list(self.rows), columns=list(self.columns))

    def cells(self, row: int) -> tuple[str, ...]:
        """Return the shown texts of one row, in quotes where spaces may matter."""
        return tuple(
            show(value, self.decimals.get(name, 4), quoted=self.quoted(i))
            for i, (name, value) in enumerate(zip(self.columns, self.rows[row], strict=True))
        )

    def __str__(self) -> str:
        cells = [self.headings, *(self.cells(row) for row in range(len(self.rows)))]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        right = [self.numeric(i) for i in range(len(self.columns))]
        lines = []
        for number, row in enumerate(cells):
            parts = [
                cell.rjust(width) if flush else cell.ljust(width)
                for cell, width, flush in zip(row, widths, right, strict=True)
            ]
            bar = "  " + "#" * round(BAR_WIDTH * self.share(number - 1)) if self.bars and number else ""
            lines.append(("  ".join(parts) + bar).rstrip())
        return "\n".join(([self.title] if self.title else []) + lines)

    def _repr_html_(self) -> str:
        """Return the table as HTML for a notebook, with drawn bars."""
        head = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in self.headings)
        body = []
        for number in range(len(self.rows)):
            cells = []
            for i, value in enumerate(self.cells(number)):
                align = "right" if self.numeric(i) else "left"
                text = html.escape(value)
                if self.bars == self.columns[i]:
                    text += _html_bar(self.share(number))
                cells.append(f"<td style='text-align:{align};white-space:pre'>{text}</td>")
            body.append(f"<tr>{''.join(cells)}</tr>")
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

    def numeric(self, column: int) -> bool:
        """Return True if a column has only numbers, which are then aligned to the right."""
        return all(isinstance(row[column], (int, float)) for row in self.rows)

    def quoted(self, column: int) -> bool:
        """Return True if spaces matter in a column, by its name or by a space at the end of a text."""
        if self.columns[column].endswith("text"):
            return True
        texts = (row[column] for row in self.rows)
        return any(isinstance(text, str) and text != text.strip() for text in texts)

    def share(self, row: int) -> float:
        """Return the length of a row's bar, 0 to 1; 0 in a table without bars."""
        value = self.rows[row][self.columns.index(self.bars)] if self.bars else 0.0
        return min(max(float(value), 0.0), 1.0) if isinstance(value, (int, float)) else 0.0


def _html_bar(share: float) -> str:
    style = f"display:inline-block;width:{BAR_WIDTH / 2}em;text-align:left;margin-left:.5em"
    inner = f"display:inline-block;height:.8em;width:{BAR_WIDTH / 2 * share:.2f}em;background:#3b7dd8"
    return f"<span style='{style}'><span style='{inner}'></span></span>"


def show(value: object, decimals: int = 4, *, quoted: bool = True) -> str:
    """Format one cell: floats with `decimals` places, texts in quotes if `quoted`, to show their spaces.

    >>> show(" of"), show(0.25), show(None)
    ('" of"', '0.2500', '-')
    """
    if isinstance(value, str):
        escaped = value.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return f'"{escaped}"' if quoted else escaped
    if isinstance(value, bool) or value is None:
        return "-" if value is None else phrase("True") if value else phrase("False")
    return f"{value:.{decimals}f}" if isinstance(value, float) else str(value)


def count(number: int, what: str, several: str | None = None) -> str:
    """Format a number with its noun; `several` is the plural if it does not just add an -s.

    >>> count(1, "token"), count(1024, "token"), count(2, "matrix", "matrices")
    ('1 token', '1,024 tokens', '2 matrices')
    """
    return f"{number:,} {phrase(what if number == 1 else several or what + 's')}"
