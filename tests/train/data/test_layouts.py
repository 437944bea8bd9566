"""Layouts are detected by their fields, read as texts and conversations, or refused with the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, BadInput, NotFound
from pophood.train.data import DataOptions
from pophood.train.data.read.layouts import WrongRecord, items_of, layout_of
from tests.train.data.samples import TASKS, byte_level, learned_text, opened, whole_text, write_lines

SYSTEM = "<|im_start|>system\nBe brief.<|im_end|>\n"
ASKED = "<|im_start|>user\nAdd.\n\n1 2<|im_end|>\n<|im_start|>assistant\n"
RECORDS: dict[str, tuple[Any, str, str]] = {  # layout -> a record, what is read, what is learned
    "text": ({"text": "Once upon"}, "Once upon<|im_end|>", "nce upon<|im_end|>"),
    "prompt": (
        {"prompt": "Add.\n\n1 2", "completion": "3"},
        ASKED + "3<|im_end|>\n",
        "3<|im_end|>",
    ),
    "messages": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Add.\n\n1 2"},
                {"role": "assistant", "content": "3"},
            ]
        },
        SYSTEM + ASKED + "3<|im_end|>\n",
        "3<|im_end|>",
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        ASKED + "3<|im_end|>\n",
        "3<|im_end|>",
    ),
    "sharegpt": (
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Add.\n\n1 2"},
                {"from": "gpt", "value": "3"},
            ]
        },
        SYSTEM + ASKED + "3<|im_end|>\n",
        "3<|im_end|>",
    ),
    "tasks": (
        {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}], "name": "x"},
        ASKED + "3<|im_end|>\n",
        "3<|im_end|>",
    ),
}


@pytest.mark.parametrize("layout", RECORDS)
def test_each_layout_is_found_and_read(layout: str, tmp_path: Path) -> None:
    record, whole, learned = RECORDS[layout]
    data = opened(write_lines(tmp_path / "a.jsonl", [record]), validation=0)
    assert data.report.format == f"{layout} (JSONL), detected from the first good records"
    assert whole_text(data) == whole
    assert learned_text(data).endswith(learned[1:])
    assert layout == "text" or learned_text(data) == learned


@pytest.mark.parametrize("layout", RECORDS)
@pytest.mark.parametrize("kind", ["array", "forced"])
def test_arrays_and_forced_layouts_are_the_same(layout: str, kind: str, tmp_path: Path) -> None:
    record, whole, _ = RECORDS[layout]
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([record, record], indent=1) if kind == "array" else json.dumps(record), "utf-8"
    )
    data = opened(path, validation=0, format=layout if kind == "forced" else "auto")
    assert whole_text(data) == whole
    assert data.report.format.startswith(
        f"{layout} (JSON array)" if kind == "array" else f"{layout} (JSONL), as requested"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_the_layout_is_that_of_most_records(tmp_path: Path, order: int) -> None:
    records: list[Any] = [{"text": "Once upon"}, *[{"prompt": f"{n}?", "completion": "a"} for n in range(3)]]
    data = opened(write_lines(tmp_path / "a.jsonl", records[::order]), validation=0)
    assert data.report.format.startswith("prompt (JSONL)")
    assert data.report.bad_count == 1 and len(data.train) == 3


def test_a_table_with_named_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,answer,rest\n"Add.\n\n1 2",3,x\n', encoding="utf-8")
    with pytest.raises(
        BadFile, match=r"its records have 'question', 'answer', 'rest'; wanted .*say which field"
    ):
        opened(path)
    data = opened(path, columns={"prompt": "question", "completion": "answer"}, validation=0)
    assert whole_text(data) == RECORDS["prompt"][1]
    assert data.report.unused == {"rest": 1}
    assert "fields that are not used: 'rest'" in data.report.notes
    assert data.report.format == "prompt (CSV), detected from the first good records"


@pytest.mark.parametrize("count", [1, 5, 6, 7, 8, 1006])
def test_fields_that_are_not_used_are_named_or_counted(tmp_path: Path, count: int) -> None:
    more = {f"field-{number}": 1 for number in range(count)}
    data = opened(write_lines(tmp_path / "a.jsonl", [{"text": "Once upon"} | more]), validation=0)
    (note,) = (note for note in data.report.notes if note.startswith("fields that are not used: "))
    named, counted = note.count("field-"), re.search(r" and ([\d,]+) more$", note)
    assert named == min(count, 6), "six, however many there are"
    assert named + (int(counted[1].replace(",", "")) if counted else 0) == count


def test_columns_are_for_jsonl_too(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"body": "Once upon"}])
    assert whole_text(opened(path, columns={"text": "body"}, validation=0)) == RECORDS["text"][1]
    with pytest.raises(BadInput, match="columns names 'txet'"):
        DataOptions(columns={"txet": "body"})


def test_the_layout_of_most_of_the_first_records_wins(tmp_path: Path) -> None:
    good, other = {"prompt": "a", "completion": "b"}, {"text": "c"}
    data = opened(write_lines(tmp_path / "a.jsonl", [b"nonsense", other, good, good, [1]]), validation=0)
    assert data.report.good == 2
    assert [(bad.line, bad.why) for bad in data.report.bad] == [
        (1, "is not JSON: Expecting value at character 1 of 8"),
        (2, "has no 'prompt'; it has 'text'"),
        (5, "is a list; wanted an object: records with `prompt` and `completion`"),
    ]


@pytest.mark.parametrize(
    ("layout", "record", "why"),
    [
        ("text", {"text": " \n"}, "has an empty text"),
        ("text", {"text": 3}, "has a number as text; wanted text"),
        ("text", {"text": "a\0"}, "has a NUL character in text"),
        ("prompt", {"prompt": None, "completion": "a"}, "has null as prompt; wanted text"),
        ("alpaca", {"instruction": "a", "output": ""}, "has an empty output"),
        (
            "tasks",
            {"instruction": "a", "instances": []},
            "has a list as instances; wanted a list that is not empty",
        ),
        ("tasks", {"instruction": "a", "instances": [{}]}, "has no 'output' in instance 1"),
        ("messages", {"messages": [{"role": "user", "content": "a"}]}, "has no message of the assistant"),
        ("messages", {"messages": [{"content": "a"}]}, "has no 'role' in message 1"),
        ("messages", {"messages": [{"role": "assistant"}]}, "has no 'content' in message 1"),
        ("messages", {"messages": [], "tools": [1]}, "has 'tools', on which pophood does not train"),
        (
            "sharegpt",
            {"conversations": [{"from": "dog", "value": "a"}]},
            "has an unknown speaker 'dog' in turn 1",
        ),
        ("sharegpt", {"conversations": [{"value": "a"}]}, "has no 'from' and 'value' in turn 1"),
        ("sharegpt", {"conversations": ["a"]}, "has text as turn 1"),
    ],
)
def test_a_wrong_record_says_what_is_wrong(layout: str, record: Any, why: str) -> None:
    with pytest.raises(WrongRecord) as caught:
        items_of(record, layout, {})
    assert str(caught.value).startswith(why)


def test_every_layout_of_records_is_told_apart() -> None:
    assert {layout: layout_of(record, {}) for layout, (record, _, _) in RECORDS.items()} == {
        layout: layout for layout in RECORDS
    }
    assert layout_of({"a": 1}, {}) is None


def test_instances_of_a_task_stay_on_one_side(tmp_path: Path) -> None:
    records = [
        {"instruction": f"Task {i}", "instances": [{"input": str(k), "output": "x"} for k in range(3)]}
        for i in range(30)
    ]
    data = opened(write_lines(tmp_path / "a.jsonl", records), validation=0.3)
    lines = [{example.source for example in side} for side in (data.train, data.validation)]
    assert not lines[0] & lines[1]
    assert data.report.good == 30
    assert data.report.documents == 90
    assert len(data.validation) in range(18, 40)


def test_the_seed_tasks() -> None:
    lines = TASKS.read_text(encoding="utf-8").splitlines()
    assert {layout_of(json.loads(line), {}) for line in lines} == {"tasks"}
    assert sum(len(items_of(json.loads(line), "tasks", {})) for line in lines) == 175


def test_a_folder_is_walked_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "two.md").write_text("second", encoding="utf-8")
    (folder / "a.txt").write_text("first", encoding="utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.txt").write_text("never", encoding="utf-8")
    (folder / "c.pdf").write_bytes(b"%PDF")
    write_lines(folder / "d.jsonl", [{"text": "third"}])
    data = opened(folder, validation=0, cache=tmp_path / "kept")
    texts = [byte_level().decode(example.ids.tolist()) for example in data.train]
    assert texts == ["first", "second", "third"]
    assert [example.source for example in data.train] == [
        f"{folder / 'a.txt'}:1",
        f"{folder / 'b' / 'two.md'}:1",
        f"{folder / 'd.jsonl'}:1",
    ]
    assert "1 other file in the folder is not read (.pdf)" in data.report.notes
    assert data.report.format == "text (text files), text (JSONL), detected from the first good records"


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.jsonl").write_bytes(b"")
    (tmp_path / "b.jsonl").write_text("hello\n", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"ab\0c")
    (tmp_path / "d.txt").write_text(" \n", encoding="utf-8")
    for name, error, words in (
        ("none", NotFound, "there is no such file or folder"),
        ("empty", BadInput, "has no data files; wanted files that end in .txt"),
        ("a.jsonl", BadInput, "is empty; wanted text, or records"),
        ("b.jsonl", BadFile, "none of its first records can be read; the one in line 1 is not JSON"),
        ("c.bin", BadFile, "is not text"),
        ("d.txt", BadInput, "d.txt: is empty; wanted text"),
    ):
        with pytest.raises(error, match=words):
            opened(tmp_path / name, cache=tmp_path / "kept")


def test_lines_as_documents(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("Ada\n\nGrace\n", encoding="utf-8")
    data = opened(path, format="lines", validation=0)
    assert [byte_level().decode(example.ids.tolist()) for example in data.train] == ["Ada", "Grace"]
    assert data.report.bad_count == 0 and data.report.good == 2  # a blank line is nothing
    assert [example.source for example in data.train] == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    "options", [{"format": "xml"}, {"length": 1}, {"validation": -1}, {"validation": 2.5}]
)
def test_options_are_checked(options: Any) -> None:
    with pytest.raises(BadInput):
        DataOptions(**options)
