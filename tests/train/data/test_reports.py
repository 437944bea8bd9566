"""Data from public bug reports about similar programs, as small inputs of our own.

Each case is named after the report that it imitates, and checks what turned out to be right there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import BadFile, BadInput
from pophood.train.data.read.json_records import parse
from pophood.train.data.read.layouts import WrongRecord, items_of
from tests.train.data.samples import learned_text, opened

END = "<|im_end|>"


def user(words: str) -> dict[str, Any]:
    return {"role": "user", "content": words}


def assistant(words: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": words} | more


def human(words: str, **more: Any) -> dict[str, Any]:
    return {"from": "human", "value": words} | more


def gpt(words: str, **more: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": words} | more


def lines(*records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


TALK = [user("a"), assistant("b")]
READ: dict[str, tuple[str, str, list[str]]] = {  # report -> file, content, what is learned
    "datasets #7222: null in one line, text in the next": (
        "a.jsonl",
        lines({"prompt": "a", "completion": "b", "n": None}, {"prompt": "a", "completion": "c", "n": "x"}),
        ["b", "c"],
    ),
    "datasets #6460: lists of numbers and texts": (
        "a.jsonl",
        lines({"prompt": "a", "completion": "b", "ner": [[0, 4, "Protein"], [1.5, {}]]}),
        ["b"],
    ),
    "datasets #7664: words that look like a schema": (
        "a.jsonl",
        lines({"prompt": "### bug, action: string, datetime: timestamp[s]", "completion": "author: string"}),
        ["author: string"],
    ),
    "LlamaFactory #6878: speakers called user and assistant": (
        "a.json",
        json.dumps([{"conversations": [human("a") | {"from": "user"}, gpt("b") | {"from": "assistant"}]}]),
        ["b"],
    ),
    "LlamaFactory #2571: a loss of false, true and null": (
        "a.jsonl",
        lines({"conversations": [human("a", loss=None), gpt("OK", loss=False), human("b"), gpt("go")]}),
        ["go"],
    ),
    "LlamaFactory #7547: blank tools": (
        "a.jsonl",
        lines(
            {"messages": TALK, "tools": " "},
            {"messages": TALK, "tools": "[]"},
            {"messages": TALK, "tools": None},
        ),
        ["b", "b", "b"],
    ),
    "LlamaFactory #8663: JSON lines": ("a.json", lines({"instruction": "a", "output": "b"}), ["b"]),
    "axolotl #1761: every answer is learned, and not the last alone": (
        "a.jsonl",
        lines(
            {
                "conversations": [
                    {"from": "system", "value": "s"},
                    human("a"),
                    gpt("one"),
                    human("b"),
                    gpt("two"),
                ]
            }
        ),
        ["one" + END + "two"],
    ),
    "TRL #3279: a prompt with a history": (
        "a.jsonl",
        lines({"prompt": [user("a"), assistant("old"), user("b")], "completion": [assistant("new")]}),
        ["new"],
    ),
    "gpt-2-simple #162: an empty text between tabs": (
        "a.tsv",
        'prompt\tcompletion\na\tone\nb\t""\n\t\nc\ttwo\n',
        ["one", "two"],
    ),
    "FartyPants #17: commas after the lines": (
        "a.jsonl",
        lines({"prompt": "a", "completion": "b"}).replace("\n", ",\n") * 2,
        ["b", "b"],
    ),
    "mlx-examples #630: a record over several lines": (
        "a.jsonl",
        json.dumps({"messages": TALK}, indent=2) + "\n" + json.dumps({"messages": TALK}, indent=2),
        ["b", "b"],
    ),
    "commas between records over several lines": (
        "a.jsonl",
        ",\n".join(json.dumps({"messages": TALK}, indent=2) for _ in range(2)),
        ["b", "b"],
    ),
    "pandas: NaN for what is missing": (
        "a.jsonl",
        '{"instruction": "a", "input": NaN, "output": "b", "system": NaN}\n',
        ["b"],
    ),
    "datasets: conversations in a cell of a table": (
        "a.csv",
        'id,messages\n1,"' + json.dumps(TALK).replace('"', '""') + '"\n',
        ["b"],
    ),
    "Excel: a first line that names the delimiter": ("a.csv", "sep=;\nprompt;completion\na;b, c\n", ["b, c"]),
    "line separators within a text": (
        "a.jsonl",
        lines({"prompt": "a\u2028b", "completion": "c\x85d\u2029e"}),
        ["c\x85d\u2029e"],
    ),
}


@pytest.mark.parametrize("report", READ)
def test_data_of_a_report_is_read(report: str, tmp_path: Path) -> None:
    name, content, learned = READ[report]
    (tmp_path / name).write_text(content, encoding="utf-8")
    data = opened(tmp_path / name, validation=0)
    found = [learned_text(data, number).removesuffix(END) for number in range(len(data.train))]
    assert found == learned
    assert data.report.bad_count == ("#162" in report)  # where one of the texts is empty


REFUSED: dict[str, tuple[str, Any, str]] = {  # report -> file, content, what is said
    "unsloth #337: lists of turns in a list": (
        "a.json",
        [[human("a"), gpt("b")], [human("a"), gpt("c")]],
        "has a list of objects where a record should be",
    ),
    "unsloth #337: turns as records": (
        "a.json",
        [human("a"), gpt("b")],
        "its records are single messages ('from', 'value'); wanted one object per conversation",
    ),
    "messages as records": (
        "a.json",
        TALK,
        'wanted one object per conversation, such as {"messages": [...]}',
    ),
    "LlamaFactory #2571: a table by columns": (
        "a.json",
        {"conversations": {"0": [human("a"), gpt("b")], "1": []}, "id": {"0": "x", "1": "y"}},
        "is a whole table by columns or rows",
    ),
    "LlamaFactory #4249: an object as output": (
        "a.json",
        [{"instruction": "a", "output": {"x": 1}}],
        "a.json:1: has an object as output; wanted text",
    ),
    "LlamaFactory #10116: null as messages": (
        "a.jsonl",
        {"messages": None},
        "has null as messages; wanted a list",
    ),
    "datasets #7161: an empty object": ("a.jsonl", {}, "its records have nothing; wanted text | prompt"),
    "tools of ShareGPT": (
        "a.jsonl",
        {"conversations": [human("a"), gpt("b")], "tools": '[{"name": "f"}]'},
        "has 'tools', on which pophood does not train",
    ),
    "roles of ShareGPT under messages": (
        "a.jsonl",
        {"messages": [{"role": "human", "content": "a"}, {"role": "gpt", "content": "b"}]},
        "has no message of the assistant: nothing to learn; its roles are 'human', 'gpt'",
    ),
    "NaN as an answer": (
        "a.jsonl",
        {"instruction": "a", "output": float("nan")},
        "has NaN as output; wanted text",
    ),
    "a function call of old": (
        "a.jsonl",
        {"messages": [user("a"), assistant(None, function_call={"name": "f", "arguments": "{}"})]},
        "neither the name nor the arguments of the call of 'f'",
    ),
    "messages that are no JSON": (
        "a.jsonl",
        {"messages": "[{'role': 'user'}]"},
        "has a text as messages that is not JSON: Expecting property name",
    ),
    "preferences": (
        "a.jsonl",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        "its records have 'prompt', 'chosen'",
    ),
}


@pytest.mark.parametrize("report", REFUSED)
def test_data_of_a_report_is_told(report: str, tmp_path: Path) -> None:
    name, value, words = REFUSED[report]
    (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises((BadFile, BadInput)) as caught:
        opened(tmp_path / name)
    assert words in str(caught.value)


def test_comments_cost_their_lines(tmp_path: Path) -> None:
    """As reported in chatGLM-6B-QLoRA #31."""
    path = tmp_path / "a.jsonl"
    path.write_text(f"// my data\n{lines({'prompt': 'a', 'completion': 'b'})}# the end\n", encoding="utf-8")
    data = opened(path, validation=0)
    assert [bad.line for bad in data.report.bad] == [1, 3] and len(data.train) == 1


@pytest.mark.parametrize(
    "name", ["valid.jsonl", "test.jsonl", "my_dev.jsonl", "notes-validation.txt", "Test.csv", "eval-1.jsonl"]
)
def test_a_part_that_is_to_validate_is_not_trained_on_in_silence(name: str, tmp_path: Path) -> None:
    """A folder has train.jsonl, valid.jsonl and test.jsonl, as in mlx-lm #57."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(lines({"text": "one"}, {"text": "two"}), encoding="utf-8")
    (folder / name).write_text(
        lines({"text": "three"}) if "jsonl" in name else "text\nthree\n", encoding="utf-8"
    )
    warnings = opened(folder, cache=tmp_path / "kept", validation=0).report.warnings
    assert any(
        warning.startswith(f"{name} is used for training like the other files") for warning in warnings
    )
    (folder / "train.jsonl").rename(folder / "notes.jsonl")
    assert not any("like the other" in w for w in opened(folder, cache=tmp_path / "kept").report.warnings)


def test_lines_of_another_encoding_are_told_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,completion\nca\u00f1a,b\n\u00e9,c\nx,y\n".encode("cp1252"))
    report = opened(path, validation=0).report
    assert [bad.line for bad in report.bad] == [2, 3]
    assert any(
        w.startswith("2 lines are not UTF-8: convert the file (with `iconv -f WINDOWS")
        for w in report.warnings
    )


@pytest.mark.parametrize(
    ("layout", "text", "why"),
    [
        (
            "prompt",
            '{"prompt": "a", "prompt": "z", "completion": "b"}',
            "names 'prompt' more than once; wanted once",
        ),
        ("text", '{"text": "a", "text": "a"}', "names 'text' more than once"),
        (
            "messages",
            '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
            "names 'content' more than once in message 1",
        ),
        (
            "sharegpt",
            '{"conversations": [{"from": "gpt", "from": "human", "value": "a"}]}',
            "names 'from' more than once in turn 1",
        ),
        (
            "messages",
            '{"messages": [{"role": "assistant", "content": "a", "weight": 1, "weight": 0}]}',
            "names 'weight' more than once in message 1",
        ),
    ],
)
def test_a_field_that_is_read_is_named_once(layout: str, text: str, why: str) -> None:
    value, trouble = parse(text)
    assert trouble is None
    with pytest.raises(WrongRecord, match=why):
        items_of(value, layout, {})


def test_a_field_that_nobody_reads_may_be_named_twice() -> None:
    value, _ = parse('{"prompt": "a", "note": 1, "note": {"x": 1, "x": 2}, "completion": "b"}')
    assert len(items_of(value, "prompt", {})) == 1
