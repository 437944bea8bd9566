"""`pophood eval`, and lengths above the context window in every command with a length."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program

TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("length", ["129", "100000"])
@pytest.mark.parametrize("command", ["eval", "tune --show", "tune --plan"])
def test_a_length_that_the_model_has_not_is_refused(
    command: str, length: str, program: Program, base: Path, notes: Path
) -> None:
    """A length above the model's 128 positions is refused before anything is computed."""
    place = [str(base)] if command == "eval" else ["-m", str(base)]
    verb, *flags = command.split()
    model = place if verb == "eval" else []
    done = program(verb, *model, "notes.txt", *flags, "--length", length, *(place if verb == "tune" else []))
    assert done.code == 2 and done.out == b""
    assert f"a length of {int(length):,} exceeds" in done.said[-1] and "128 positions" in done.said[-1]
    assert "lower --length" in done.said[-1]


def test_a_length_that_the_model_has_is_used(program: Program, base: Path, notes: Path) -> None:
    tokens = [
        json.loads(program("eval", str(base), "notes.txt", "--json", *length).out)["tokens"]
        for length in ([], ["--length", "128"], ["--length", "16"])
    ]
    assert tokens[0] == tokens[1] == tokens[2] > 300  # no token is lost when a text is split


def test_shorter_rows_than_usual_are_said(program: Program, base: Path, notes: Path) -> None:
    """A model of 128 positions shortens the 256 positions that `tune` uses by default, with a message."""
    done = program("tune", "notes.txt", "-m", str(base), "--show")
    assert "rows have 128 positions instead of 256: the model has no more" in done.said
    assert not any("instead of" in line for line in program("tune", "notes.txt", "-m", str(base), "--show",
                                                            "--length", "128").said)  # fmt: skip


def test_columns_and_strict_are_there_as_for_tune(program: Program, base: Path, notes: Path) -> None:
    """`eval` has the --columns option that its error message recommends."""
    lines = [json.dumps({"question": f"Q{n}?", "answer": "yes"}) for n in range(5)]
    (notes / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = program("eval", str(base), "a.jsonl")
    assert done.code == 1 and "its records have 'question', 'answer'" in done.said[-1]
    assert "--columns prompt=question,completion=answer" in done.said[-1]
    columns = ("--columns", "prompt=question,completion=answer")
    assert program("eval", str(base), "a.jsonl", *columns).code == 0
    (notes / "a.jsonl").write_text("\n".join([*lines, "{"]), encoding="utf-8")
    loose, strict = (program("eval", str(base), "a.jsonl", *columns, *more) for more in ([], ["--strict"]))
    assert loose.code == 0 and any("a.jsonl:6: is not JSON" in line for line in loose.said)
    assert strict.code == 1 and "a.jsonl:6: is not JSON" in strict.said[-1]
