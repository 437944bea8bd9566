"""Records from JSONL, arrays and tables are those of the standard library's readers, if they are good."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pophood.errors import BadFile
from pophood.train.data.read import json_records as raw
from pophood.train.data.read.csv_records import read_table
from pophood.train.data.read.json_records import read_json, read_jsonl

SLOW = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@SLOW
@given(values=st.lists(VALUES, max_size=8), indent=st.sampled_from([None, 1]), size=st.integers(1, 50))
def test_an_array_is_its_items(
    values: list[Any], indent: int | None, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Items and the lines on which they begin do not depend on the size of segments."""
    path = tmp_path_factory.mktemp("j") / "a.json"
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw, "SEGMENT", size)
        patch.setattr("pophood.train.data.read.lines.SEGMENT", size)
        found = list(read_json(path, "array"))
    assert [item.value for item in found] == values
    assert not any(item.why for item in found)
    if indent:
        lines, at = [], 2
        for value in values:
            lines.append(at)
            at += json.dumps(value, indent=1, ensure_ascii=False).count("\n") + 1
        assert [item.line for item in found] == lines


@pytest.mark.parametrize(
    ("text", "good", "line", "why"),
    [
        ('[{"a": 1},\n{"a": 2', 1, 2, "is not JSON"),
        ('[{"a": 1}\n{"a": 2}]', 1, 2, "has '{' where ',' was expected"),
        ('[{"a": 1},\n', 1, 2, "the list is not closed"),
        ('[{"a": 1}]\n]', 1, 2, "comes after the end of the list"),
        ('{"a": 1}', 0, 1, "has '{' where '[' was expected"),
    ],
)
def test_a_broken_array_says_where_it_ends(text: str, good: int, line: int, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    *before, last = read_json(path, "array")
    assert [item.why for item in before] == [None] * good
    assert last.line == line
    assert last.why is not None and why in last.why


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"text": "cut', "is not JSON: Unterminated string starting at at character 10 of 13"),
        (b'{"text": "a"} x', "is not JSON: Extra data at character 15 of 15"),
        (b"[" * 100_000, "is not usable JSON: nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "is not usable JSON: Exceeds the limit"),
    ],
)
def test_a_line_that_is_not_json(line: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "ok"}\r\n' + line + b'\n{"text": "ok"}\n')
    found = list(read_jsonl(path))
    assert [item.line for item in found] == [1, 2, 3]
    assert found[1].why is not None and found[1].why.startswith(why)
    assert [found[0].value, found[2].value] == [{"text": "ok"}] * 2


@SLOW
@given(
    rows=st.lists(st.tuples(st.text("a,;\"\n é'", max_size=6), st.text('x"\n,', max_size=5)), max_size=8),
    delimiter=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_a_table_is_what_the_standard_library_reads(
    rows: list[tuple[str, str]],
    delimiter: str,
    end: str,
    quoting: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(("prompt", "completion"))
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("t") / "a.csv"
    path.write_bytes(out.getvalue().encode())
    reader = csv.reader(io.StringIO(out.getvalue().replace("\r\n", "\n"), newline=""), delimiter=delimiter)
    next(reader)
    expected, lines, before = [], [], 1
    for row in reader:
        expected.append(row)
        lines.append(before + 1)
        before = reader.line_num
    filled = [place for place, row in enumerate(expected) if any(value.strip() for value in row)]
    found = list(read_table(path))
    assert [(r.line, r.why) for r in found] == [(lines[place], None) for place in filled]
    assert [list(r.value.values()) for r in found] == [expected[place] for place in filled]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@example(body='"\r\r\na"', ending="csv")
@given(body=st.text('ab "\n\r,', max_size=40), ending=st.sampled_from(["csv", "tsv"]))
def test_any_table_is_what_the_standard_library_reads(
    body: str, ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Quotes anywhere, rows of any length, all line ends: equal to csv unless the last quote stays open."""
    delimiter = "\t" if ending == "tsv" else ","
    text = f"x,y\n{body}".replace(",", delimiter)
    path = tmp_path_factory.mktemp("t") / f"a.{ending}"
    path.write_bytes(text.encode())
    closed = list(csv.reader(io.StringIO(f"{text}\nlast", newline=""), delimiter=delimiter))[-1] == ["last"]
    if not closed:
        return
    with path.open(newline="", encoding="utf-8") as file:
        wanted = list(csv.reader(file, delimiter=delimiter))[1:]
    wanted = [[value.replace("\r\n", "\n") for value in row] for row in wanted]
    wanted = [row for row in wanted if any(value.strip() for value in row)]
    found = list(read_table(path))
    assert len(found) == len(wanted)
    for record, row in zip(found, wanted, strict=True):
        if any(value.strip() for value in row[2:]):
            assert record.why is not None and record.why.startswith(f"has {len(row)} values for 2 columns: ")
        else:
            assert (record.why, record.value) == (None, dict(zip(("x", "y"), row, strict=False)))
            assert (record.short is not None) == (len(row) < 2)


def test_a_field_may_be_longer_than_the_limit_of_the_standard_library(tmp_path: Path) -> None:
    """The field limit of the csv module, which is global, stays as it was."""
    limit = csv.field_size_limit()
    path = tmp_path / "a.csv"
    path.write_text(f'text\n"{"word " * limit}"\nnext\n', encoding="utf-8")
    first, second = read_table(path)
    assert len(first.value["text"]) == 5 * limit and second.value == {"text": "next"}
    assert csv.field_size_limit() == limit


def test_bad_records_of_a_table_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'prompt,completion\na,b\na,b,c\n"x\ny",z\n\nq"q,r\n\xff,s\n"a\n\xff",t\n"never closed,1\nlast,line\n'
    )
    assert [(record.line, record.why) for record in read_table(path)] == [
        (2, None),
        (3, "has 3 values for 2 columns: a value with ',' in it needs quotes"),
        (4, None),
        (7, None),
        (8, "is not UTF-8: byte 0xFF at byte 1"),
        (9, "(in line 10) is not UTF-8: byte 0xFF at byte 1"),
        (11, "opens a quote that is never closed"),
        (12, None),
    ]


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"", "is empty; wanted a first line"),
        (b"\n,\n", "is empty"),
        (b"\xff\n1,2\n", "the first line is not UTF-8"),
    ],
)
def test_a_table_names_its_columns(head: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(head)
    with pytest.raises(BadFile, match=why):
        list(read_table(path))
