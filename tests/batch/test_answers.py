"""The file of answers: torn ends are cut, other runs and inputs refused, two writers never meet."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pophood.batch.answers import AnswerFile, AnswerStream
from pophood.batch.facts import place_of, read_facts
from pophood.errors import BadFile, BadInput, PophoodError
from tests.batch.finishing import FACTS, LINES, asked, run, told, wanted


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.full)])
def test_a_run_cut_at_any_byte_goes_on_to_the_same_bytes(tmp_path: Path, every: int) -> None:
    whole = wanted(tmp_path / "whole")
    folder = asked(tmp_path / "cut")
    run(folder, most=0)
    ends = {i for i, byte in enumerate(whole) if byte == ord("\n")}
    for size in sorted({*range(0, len(whole), every), *ends, *(end + 1 for end in ends)}):
        (folder / "answers.jsonl").write_bytes(whole[:size])
        done, new = run(folder)
        assert told(folder) == whole
        assert (done, new) == (whole[:size].count(b"\n"), len(LINES) - whole[:size].count(b"\n"))


HOLES = [b"\0" * 40, b"\0\n\0\n", b'{"line": 3, "ha', b"\xff\n", b"{}\n", b"[]\n", b"3\n"]


@pytest.mark.parametrize("hole", HOLES)
def test_what_a_power_cut_leaves_at_the_end_is_cut_off(tmp_path: Path, hole: bytes) -> None:
    whole = wanted(tmp_path / "whole")
    folder = asked(tmp_path / "cut")
    run(folder, most=2)
    (folder / "answers.jsonl").write_bytes(told(folder) + hole)
    assert run(folder) == (2, 4)
    assert told(folder) == whole


def test_a_hole_before_whole_lines_is_cut_off_with_them(tmp_path: Path) -> None:
    """Blocks of a file may reach the disk in any order; no answer of ours has a NUL in it."""
    whole = wanted(tmp_path / "whole")
    lines = whole.splitlines(keepends=True)
    (tmp_path / "whole" / "answers.jsonl").write_bytes(lines[0] + b"\0" * 30 + b"".join(lines[2:]))
    assert run(tmp_path / "whole") == (1, 5)
    assert told(tmp_path / "whole") == whole


def test_a_damaged_line_before_whole_ones_is_left_to_the_user(tmp_path: Path) -> None:
    whole = wanted(tmp_path)
    lines = whole.splitlines(keepends=True)
    for damaged in (b"oops\n", lines[0]):  # or a line that is there twice
        data = lines[0] + damaged + b"".join(lines[2:])
        (tmp_path / "answers.jsonl").write_bytes(data)
        with pytest.raises(BadFile, match=r"the line after that of input line 1 is damaged, and whole ones"):
            run(tmp_path)
        assert told(tmp_path) == data


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    whole = wanted(tmp_path)
    assert run(tmp_path) == (6, 0)
    assert told(tmp_path) == whole


def test_lines_that_were_added_to_the_input_are_answered(tmp_path: Path) -> None:
    whole = wanted(tmp_path)
    asked(tmp_path, [*LINES, '{"prompt": "new"}'])
    assert run(tmp_path) == (6, 1)
    assert told(tmp_path).startswith(whole) and b"NEW" in told(tmp_path)


def test_errors_of_earlier_runs_are_counted(tmp_path: Path) -> None:
    run(asked(tmp_path), most=4)
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        from pophood.batch.lines import LineSource

        answers.begin(FACTS, LineSource(io.BytesIO((tmp_path / "prompts.jsonl").read_bytes()), "x"))
        assert (answers.done, answers.failed) == (4, 1)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([LINES[0], "{}", *LINES[2:]], "answers line 2, and the input has another text there"),
        (LINES[:2], "answers line 3, and the input has no such line"),
        (["", *LINES], "answers line 1, and the input has another text there"),
        ([LINES[0], "", *LINES[1:]], "answers line 2, and the input has another text there"),
    ],
)
def test_another_input_is_refused(tmp_path: Path, lines: list[str], said: str) -> None:
    run(asked(tmp_path), most=4)
    before = told(tmp_path)
    asked(tmp_path, lines)
    with pytest.raises(BadInput, match=said):
        run(tmp_path)
    assert told(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": "ffff"}, r"another value of the model's files ('ab12', now 'ffff')"),
        ({"precision": "f32"}, "another value of --precision ('auto', now 'f32')"),
        ({"kv": "q8"}, "another value of --kv"),
        ({"context": 64}, "another value of --context (128, now 64)"),
        ({"adapters": []}, "another value of the adapters"),
        ({"seed": 8}, "another value of --seed (7, now 8)"),
        ({"settings": {"temperature": 0.7, "stop": ["END"]}}, "another value of temperature (0.8, now 0.7)"),
        ({"settings": {"temperature": 0.8, "stop": []}}, "another value of stop (['END'], now [])"),
        ({"seed": 8, "kv": "q8"}, "another value of --kv, --seed"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    run(asked(tmp_path), most=3)
    before = told(tmp_path), place_of(tmp_path / "answers.jsonl").read_bytes()
    with pytest.raises(BadInput) as refused:
        run(tmp_path, replace(FACTS, **change))
    assert said in str(refused.value) and "start anew with --overwrite" in str(refused.value)
    assert (told(tmp_path), place_of(tmp_path / "answers.jsonl").read_bytes()) == before
    assert run(tmp_path) == (3, 3)


def test_another_name_or_version_changes_no_answer(tmp_path: Path) -> None:
    run(asked(tmp_path), most=3)
    assert run(tmp_path, replace(FACTS, model="copy", version="9", created=3)) == (3, 3)
    kept = read_facts(tmp_path / "answers.jsonl")
    assert kept == FACTS


def test_overwrite_starts_anew(tmp_path: Path) -> None:
    run(asked(tmp_path), most=3)
    other = replace(FACTS, seed=8)
    assert run(tmp_path, other, overwrite=True) == (0, 6)
    assert read_facts(tmp_path / "answers.jsonl") == other


def test_a_file_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    asked(tmp_path)
    (tmp_path / "answers.jsonl").write_text("mine\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"is there, and answers\.jsonl\.run is not, so `pophood batch`"):
        run(tmp_path)
    assert told(tmp_path) == b"mine\n"
    assert run(tmp_path, overwrite=True) == (0, 6)


def test_an_empty_file_is_used(tmp_path: Path) -> None:
    asked(tmp_path)
    (tmp_path / "answers.jsonl").touch()
    place_of(tmp_path / "answers.jsonl").write_text("anything", encoding="utf-8")  # it answers nothing
    assert run(tmp_path) == (0, 6)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "seed": 3}', "\0" * 50])
def test_a_record_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    run(asked(tmp_path), most=3)
    place_of(tmp_path / "answers.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match="is no record of `pophood batch`: delete it, or give --overwrite"):
        run(tmp_path)
    assert run(tmp_path, overwrite=True) == (0, 6)


def test_the_record_of_another_format_is_refused(tmp_path: Path) -> None:
    run(asked(tmp_path), most=3)
    place = place_of(tmp_path / "answers.jsonl")
    place.write_text(json.dumps(json.loads(place.read_bytes()) | {"format": 2}), encoding="utf-8")
    with pytest.raises(BadFile, match="was written by pophood '0'; --overwrite starts anew"):
        run(tmp_path)


def test_two_programs_do_not_write_one_file(tmp_path: Path) -> None:
    run(asked(tmp_path), most=3)
    with AnswerFile(tmp_path / "answers.jsonl"), pytest.raises(PophoodError, match="still locked by another"):
        run(tmp_path)
    assert run(tmp_path) == (3, 3)


def test_a_stream_gets_whole_lines() -> None:
    stream = io.BytesIO()
    with AnswerStream(stream) as answers:
        answers.write({"line": 1})
        assert stream.getvalue() == b'{"line": 1}\n'
