"""Files in the wild that other programs read: unread columns, blanks, lists around the records.

What is skipped is reported, and an error about what cannot be read says what to do.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, BadInput
from pophood.train.data import Data
from pophood.train.data.read.layouts import items_of
from tests.conftest import ROOT
from tests.train.data.samples import byte_level, opened, write_lines

CASES = ROOT / "tests" / "data" / "cases"
PAIR = {"prompt": "a?", "completion": "b"}
OTHER = {"prompt": "c?", "completion": "d"}


def pairs(data: Data) -> list[tuple[str, str]]:
    """Return the questions and answers of the training side."""
    found = []
    for example in data.train:
        text = byte_level().decode(example.ids.tolist(), special=True)
        question, answer = text.split("<|im_start|>assistant\n")
        found.append(
            (question.split("user\n")[1].removesuffix("<|im_end|>\n"), answer.split("<|im_end|>")[0])
        )
    return found


def read(path: Path, content: str | bytes | None = None, **options: Any) -> Data:
    """Write a file and open it without validation data; no line may be bad."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = opened(path, cache=options.pop("cache", path.parent / "kept"), validation=0, **options)
    assert data.report.bad_count == 0, data.report.bad
    return data


# Columns ------------------------------------------------------------------------------------------------


def test_a_column_without_a_name_is_passed_over_aloud(tmp_path: Path) -> None:
    data = read(CASES / "pandas-index.csv", cache=tmp_path)
    assert pairs(data) == [("a?", "b"), ("c?", "d")]
    assert "fields that are not used: a column without a name" in data.report.notes
    assert data.report.unused == {"": 2}


@pytest.mark.parametrize(
    ("content", "unused"),
    [
        (",prompt,completion,\n0,a?,b,\n1,c?,d,\n", {"": 2}),  # at the end too, as spreadsheets write it
        ("prompt,,completion,,\na?,x,b,,\nc?,,d,,y\n", {"": 2}),
        ("prompt,note,note,completion\na?,1,2,b\nc?,3,4,d\n", {"note": 2}),
        (" prompt , completion \na?,b\nc?,d\n", {}),
        ("prompt,completion\na?,b,\nc?,d,,\n", {}),  # separators after the last value
        ("prompt,completion,note\na?,b\nc?,d,x\n", {"note": 1}),
        ('"prompt";"completion";"rest, of it"\na?;b;1\nc?;d;2\n', {"rest, of it": 2}),
        ("\n\nprompt,completion\n\na?,b\n , \nc?,d\n,\n", {}),
        ("prompt,completion\ra?,b\rc?,d\r", {}),  # an old Mac's line ends
        ('prompt,completion\r\n"a?","b"\r\nc?,d', {}),
    ],
)
def test_columns_that_nobody_reads_refuse_no_file(
    content: str, unused: dict[str, int], tmp_path: Path
) -> None:
    data = read(tmp_path / "a.csv", content)
    assert pairs(data) == [("a?", "b"), ("c?", "d")]
    assert data.report.unused == unused


def test_rows_without_values_that_nobody_reads_are_counted(tmp_path: Path) -> None:
    data = read(tmp_path / "a.csv", "prompt,completion,note\na?,b\nc?,d,x\n")
    assert "1 row has no value in some columns, which are not read" in data.report.notes
    (tmp_path / "b.csv").write_text("prompt,completion\na?,b\nc?\n", encoding="utf-8")
    (bad,) = opened(tmp_path / "b.csv", validation=0).report.bad
    assert (bad.line, bad.why) == (3, "has 1 value for 2 columns")


@pytest.mark.parametrize(
    ("content", "options", "name"),
    [
        ("prompt,completion,prompt\na?,b,c\n", {}, "prompt"),
        ("prompt,answer,answer\na?,b,c\n", {"columns": {"completion": "answer"}}, "answer"),
        ("text,text \na,b\n", {}, "text"),
        ("instruction,output,input,input\na,b,c,d\n", {}, "input"),
        ("prompt,completion,completion\na?,b,c\n", {"format": "prompt"}, "completion"),
    ],
)
def test_a_column_that_is_read_is_named_once(content: str, options: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(BadFile, match=f"the first line names '{name}' more than once"):
        opened(tmp_path / "a.csv", **options)


def test_the_hint_for_columns_can_be_pasted(tmp_path: Path) -> None:
    from pophood.cli.options.tune import columns_of

    path = write_lines(tmp_path / "a.jsonl", [{"question": "a?", "answer": "b"}])
    with pytest.raises(BadFile) as caught:
        opened(path)
    hint = str(caught.value).split("--columns ")[1].split(" ")[0]
    assert pairs(read(path, columns=columns_of(hint))) == [("a?", "b")]
    with pytest.raises(BadInput, match="wanted each of our fields once"):
        columns_of("prompt=a,prompt=b")


# Quotes and tabs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quotes.csv", "quotes.tsv", "one-column.tsv"])
def test_tables_are_read_as_the_standard_library_reads_them(name: str, tmp_path: Path) -> None:
    data = read(CASES / name, cache=tmp_path)
    with (CASES / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if name.endswith("tsv") else ","))
    if "text" in rows[0]:
        words = [byte_level().decode(example.ids.tolist()) for example in data.train]
        assert words == [row["text"] for row in rows]
    else:
        assert pairs(data) == [(row["prompt"], row["completion"]) for row in rows]
    assert f"({name[-3:].upper()})" in data.report.format


@pytest.mark.parametrize(
    "row",
    [
        "He is 6'2\" tall,yes",
        '"a" b,"c"d"e',
        'ends with ",x""',
        '"""quoted""","a,b;c"',
        "'single, quotes',no",
        '"two\nlines",ok',
        'tab\there,"semi;colon"',
    ],
)
def test_quotes_where_nobody_expects_them(row: str, tmp_path: Path) -> None:
    wanted = next(csv.reader(io.StringIO(f"{row}\n", newline="")))
    (tmp_path / "a.csv").write_text(f"prompt,completion\n{row}\nc?,d\n", encoding="utf-8")
    data = opened(tmp_path / "a.csv", validation=0)
    if len(wanted) == 2:
        assert pairs(data) == [tuple(wanted), ("c?", "d")]
    else:
        assert pairs(data) == [("c?", "d")] and data.report.bad[0].line == 2


def test_a_message_names_the_format_that_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("prompt,completion\na?,b\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text\nHello, group\n", encoding="utf-8")
    (tmp_path / "c.tsv").write_text("text\na\tb\n", encoding="utf-8")
    (tmp_path / "d.jsonl").write_text("prompt,completion\na?,b\n", encoding="utf-8")
    for name, words in (
        ("a.tsv", r"has one column, 'prompt,completion'; a \.tsv is separated by tabs: name the file \.csv"),
        (
            "b.csv",
            r"none of its first records can be read; the one in line 2 has 2 values for 1 column: a value",
        ),
        ("c.tsv", r"has 2 values for 1 column: a value with a tab in it needs quotes"),
        ("d.jsonl", r"none of its first records can be read; the one in line 1 is not JSON: Expecting value"),
    ):
        with pytest.raises((BadFile, BadInput), match=words):
            opened(tmp_path / name)


# Blanks -------------------------------------------------------------------------------------------------


def test_blank_lines_are_nothing(tmp_path: Path) -> None:
    data = read(CASES / "blank-lines.jsonl", cache=tmp_path, strict=True)
    assert (data.report.good, data.report.total) == (2, 2)


def test_a_blank_input_is_none(tmp_path: Path) -> None:
    data = opened(CASES / "alpaca-blank-input.jsonl", cache=tmp_path, validation=0)
    assert pairs(data) == [("Say hi", "hi"), ("Say hi", "hello"), ("Say hi", "hey"), ("Say", "yo")]
    assert [(bad.line, bad.why) for bad in data.report.bad] == [
        (5, "has an empty output"),
        (6, "has a number as output; wanted text"),
    ]


BLANKS: dict[str, tuple[str, str]] = {  # the name of a file, its content: two records each
    "between": ("a.jsonl", f"\n{json.dumps(PAIR)}\n\n \t\n{json.dumps(OTHER)}\n\n\n"),
    "with carriage returns": ("a.jsonl", f"\r\n{json.dumps(PAIR)}\r\n\r\n{json.dumps(OTHER)}\r\n"),
    "of Unicode": ("a.jsonl", f"{json.dumps(PAIR)}\n\u3000\u00a0\n{json.dumps(OTHER)}"),
    "before an array": ("a.json", f"\n\n  [{json.dumps(PAIR)},\n\n{json.dumps(OTHER)}]\n\n"),
    "in a table": ("a.csv", "prompt,completion\n\na?,b\n,\n  ,  \nc?,d\n\n"),
    "in a table of tabs": ("a.tsv", "prompt\tcompletion\n\t\na?\tb\n\nc?\td\n"),
    "around fields": ("a.jsonl", f"  {json.dumps(PAIR)}  \n\t{json.dumps(OTHER)}\n"),
}


@pytest.mark.parametrize("place", BLANKS)
def test_white_space_is_no_damage(place: str, tmp_path: Path) -> None:
    name, content = BLANKS[place]
    data = read(tmp_path / name, content, strict=True)
    assert pairs(data) == [("a?", "b"), ("c?", "d")]
    assert data.report.total == 2


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000", None])
@pytest.mark.parametrize(
    ("layout", "record"),
    [
        ("alpaca", {"instruction": "a?", "output": "b", "input": ..., "system": ...}),
        ("prompt", {"prompt": "a?", "completion": "b", "system": ...}),
        ("tasks", {"instruction": "a?", "instances": [{"input": ..., "output": "b"}]}),
        (
            "sharegpt",
            {
                "system": ...,
                "conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}],
            },
        ),
    ],
)
def test_a_blank_field_is_none(layout: str, record: dict[str, Any], blank: str | None) -> None:
    filled = json.loads(json.dumps(record, default=lambda _: blank))
    (item,) = items_of(filled, layout, {})
    assert [(m["role"], m["content"]) for m in item.messages] == [("user", "a?"), ("assistant", "b")]


def test_a_blank_system_turn_is_none() -> None:
    turns = [
        {"from": "system", "value": " "},
        {"from": "human", "value": "a?"},
        {"from": "gpt", "value": "b"},
    ]
    (item,) = items_of({"conversations": turns}, "sharegpt", {})
    assert [m["role"] for m in item.messages] == ["user", "assistant"]


def test_empty_files_of_a_folder_are_named_and_stop_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "a.md").write_text("Some text.", encoding="utf-8")
    (folder / "b.md").write_text(" \n\n", encoding="utf-8")
    (folder / "c.jsonl").write_bytes(b"")
    (folder / "d.json").write_text("[]", encoding="utf-8")
    (folder / "e.csv").write_text("prompt,completion\n", encoding="utf-8")
    (folder / "f.txt").write_bytes(b"\xef\xbb\xbf")
    data = read(folder, strict=True, cache=tmp_path / "kept")
    assert len(data.train) == 1
    (note,) = (note for note in data.report.notes if "empty" in note)
    assert note == f"5 files are empty ({folder / 'b.md'}, {folder / 'c.jsonl'}, {folder / 'd.json'}, ...)"


# Arrays and objects around the records ------------------------------------------------------------------

WHOLE, OBJECT = json.dumps([PAIR, OTHER]), "JSON array in an object"
TABLE = "is a whole table by columns or rows"
READ: dict[str, tuple[str, str, str]] = {  # name of a file, its content, the format that is reported
    "an array in .jsonl": ("a.jsonl", json.dumps([PAIR, OTHER], indent=2), "JSON array"),
    "an array in one line of .jsonl": ("a.jsonl", WHOLE + "\n", "JSON array"),
    "an array in .ndjson": ("a.ndjson", "[\n" + WHOLE[1:], "JSON array"),
    "an array without an ending": ("records", WHOLE, "JSON array"),
    "an object with data": ("a.json", json.dumps({"data": [PAIR, OTHER]}, indent=1), OBJECT),
    "in one line": ("a.jsonl", json.dumps({"data": [PAIR, OTHER]}), OBJECT),
    "under another name": ("a.json", json.dumps({"examples": [PAIR, OTHER]}), OBJECT),
    "beside other keys": (
        "a.json",
        json.dumps({"version": "1.1", "info": {"by": ["x"]}, "train": [PAIR, OTHER], "n": 2}, indent=2),
        OBJECT,
    ),
    "as LMFlow has it": ("a.json", json.dumps({"type": "x", "instances": [PAIR, OTHER]}), OBJECT),
    "objects over lines": (
        "a.jsonl",
        json.dumps(PAIR, indent=2) + "\n\n" + json.dumps(OTHER, indent=4),
        "JSON objects over several lines",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", READ)
def test_records_are_found_wherever_they_are(shape: str, tmp_path: Path) -> None:
    name, content, reported = READ[shape]
    data = read(tmp_path / name, content)
    assert pairs(data) == [("a?", "b"), ("c?", "d")]
    assert data.report.format == f"prompt ({reported}), detected from the first good records"
    forced = read(tmp_path / name, content, format="prompt")
    assert pairs(forced) == pairs(data)


def test_what_stands_beside_the_list_is_said(tmp_path: Path) -> None:
    content = {"version": "1.1", "info": {"by": ["x"]}, "train": [PAIR, OTHER], "n": 2}
    for indent in (None, 1):
        data = read(tmp_path / f"{indent}.json", json.dumps(content, indent=indent))
        assert "not read, beside the list of records: 'version', 'info', 'n'" in data.report.notes


def test_the_reported_files(tmp_path: Path) -> None:
    assert pairs(read(CASES / "array.jsonl", cache=tmp_path)) == [("a?", "b"), ("c?", "d")]
    assert pairs(read(CASES / "wrapped.json", cache=tmp_path)) == [("a?", "b")]


def test_one_record_over_several_lines_is_one(tmp_path: Path) -> None:
    """Lists of objects within a record belong to it, in any order."""
    record = {
        "id": 1,
        "notes": [{"by": "x"}],
        "messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}],
    }
    data = read(tmp_path / "a.json", json.dumps(record, indent=2))
    assert pairs(data) == [("a?", "b")]
    assert set(data.report.unused) == {"id", "notes"}
    task = {"instruction": "a?", "instances": [{"input": "", "output": "b"}]}
    assert pairs(read(tmp_path / "b.json", json.dumps(task, indent=2))) == [("a?", "b")]
    named = {"chat": record["messages"]}
    columns = {"messages": "chat"}
    assert pairs(read(tmp_path / "c.json", json.dumps(named, indent=2), columns=columns)) == [("a?", "b")]


def test_a_second_list_is_not_lost_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"train": [PAIR], "test": [OTHER]}, indent=1), encoding="utf-8"
    )
    data = opened(tmp_path / "a.json", validation=0)
    assert pairs(data) == [("a?", "b")]
    (bad,) = data.report.bad
    assert "begins another list, 'test', which is not read: put it in a file of its own" in bad.why
    with pytest.raises(BadFile, match=r"a\.json:8: begins another list, 'test'"):
        opened(tmp_path / "a.json", strict=True)


REFUSED: dict[str, tuple[Any, str]] = {  # what pandas and others write, and what is said about it
    "columns": ({"prompt": ["a?", "c?"], "completion": ["b", "d"]}, TABLE),
    "columns by row": ({"prompt": {"0": "a?"}, "completion": {"0": "b"}}, TABLE),
    "rows by number": ({"0": PAIR, "1": OTHER}, TABLE),
    "split": ({"columns": ["prompt", "completion"], "data": [["a?", "b"]]}, TABLE),
    "by name": ({"one": PAIR, "two": OTHER}, "is one object whose values are objects; wanted a list of them"),
    "lists": ([["a?", "b"], ["c?", "d"]], "has a list where a record should be"),
    "conversations": ([[{"role": "user", "content": "a?"}]], 'one object per line, such as {"messages": ['),
    "texts": (["one", "two"], 'has text where a record should be; wanted objects such as {"text": ...}'),
    "other fields": ({"q": "a?", "a": "b"}, "its records have 'q', 'a'; wanted text | prompt, completion"),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
@pytest.mark.parametrize("indent", [None, 2])
def test_other_shapes_are_told_with_what_to_do(shape: str, indent: int | None, tmp_path: Path) -> None:
    value, words = REFUSED[shape]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, indent=indent), encoding="utf-8")
    with pytest.raises(BadFile) as caught:
        opened(path)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_of_messages_a_line_is_told(tmp_path: Path) -> None:
    line = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
    path = write_lines(tmp_path / "a.jsonl", [line, line])
    with pytest.raises(BadFile, match=r'has a list of objects .* as \{"messages": \[\.\.\.\]\}'):
        opened(path)


def test_damage_to_the_first_line_costs_that_line(tmp_path: Path) -> None:
    for first in ('{"prompt": "a', "[1, 2", '{"prompt":', "{"):
        path = tmp_path / "a.jsonl"
        path.write_text(f"{first}\n{json.dumps(PAIR)}\n{json.dumps(OTHER)}\n", encoding="utf-8")
        data = opened(path, validation=0)
        assert pairs(data) == [("a?", "b"), ("c?", "d")]
        assert [bad.line for bad in data.report.bad] == [1]


def test_a_wrapped_array_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """The list may be longer than the limit for one record."""
    import tracemalloc

    path = tmp_path / "a.json"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"data": [')
        file.write(",".join(json.dumps({"text": f"{number} " + "x" * 9000}) for number in range(2000)))
        file.write("]}")
    from pophood.train.data.read.json_records import read_json

    tracemalloc.start()
    count = sum(raw.why is None for raw in read_json(path, "wrapped", "data"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000 and path.stat().st_size > 17 << 20 and peak < 3 << 20
    from pophood.train.data.read.files import FileShape, shape_of

    assert shape_of(path, {"text"}, records=False) == FileShape("wrapped", "data")
