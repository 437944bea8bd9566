"""Tables: the same rows as text, CSV, JSON, data frame and HTML."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pophood.table import Table

TALK = Table(
    ("position", "token_id", "token_text"),
    ((0, 464, "The"), (1, 3139, " capital"), (2, 286, " of"), (3, 8602, " Spain"), (4, 318, " is")),
)


def test_text_shows_spaces_and_lines_up() -> None:
    assert str(TALK).splitlines() == [
        "position  token_id  token_text",
        '       0       464  "The"',
        '       1      3139  " capital"',
        '       2       286  " of"',
        '       3      8602  " Spain"',
        '       4       318  " is"',
    ]


def test_bars_follow_a_column() -> None:
    table = Table(
        ("token_text", "probability"), ((" Madrid", 0.5), (" a", 0.25), (" b", 7.0)), bars="probability"
    )
    bars = [line.split("  ")[-1].strip() for line in str(table).splitlines()[1:]]
    assert bars == ["#" * 12, "#" * 6, "#" * 24]
    html = table._repr_html_()
    assert "width:6.00em" in html and "width:3.00em" in html and "width:12.00em" in html


def test_rows_are_found_by_name() -> None:
    assert len(TALK) == 5
    assert TALK[1] == {"position": 1, "token_id": 3139, "token_text": " capital"}
    assert TALK.column("token_id") == [464, 3139, 286, 8602, 318]
    with pytest.raises(ValueError, match="tuple"):
        TALK.column("nothing")


@given(st.lists(st.tuples(st.text(), st.integers(), st.floats(allow_nan=False)), max_size=5))
def test_csv_json_and_html_say_the_same(rows: list[tuple[str, int, float]]) -> None:
    table = Table(("a", "b", "c"), tuple(rows))
    assert [tuple(row.values()) for row in json.loads(table.to_json())] == rows
    read = list(csv.reader(io.StringIO(table.to_csv(), newline="")))
    assert read[0] == ["a", "b", "c"]
    expected = [tuple(map(str, row)) for row in rows]
    assert [tuple(row) for row in read[1:]] == expected or any(
        "\r" in row[0] or "\n" in row[0] for row in rows
    )
    assert table._repr_html_().count("<tr>") == len(rows) + 1


def test_html_is_escaped() -> None:
    assert "<script>" not in Table(("<b>",), (("<script>",),), title="<i>")._repr_html_()
