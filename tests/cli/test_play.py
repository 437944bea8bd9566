"""`pophood play FILE` through a pipe: guesses, hints, passing, quitting, JSON, bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program
from tests.test_play import STORY


@pytest.fixture
def story(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(STORY, encoding="utf-8")
    return path


def test_a_game_with_the_right_answers(program: Program, base: Path, story: Path) -> None:
    arguments = ("play", "story.txt", "-m", str(base), "--rounds", "4", "--seed", "5")
    blank = json.loads(program(*arguments, "--json", stdin=b"\n\n\n\n").text)
    answers = [turn["answer"].strip() for turn in blank["turns"]]
    assert len(answers) == 4 and blank["points"] == 0 and blank["ended"] == "all" and blank["seed"] == 5
    assert all(STORY.startswith(turn["before"] + turn["answer"]) for turn in blank["turns"])
    script = f"{answers[0]}\n?\n{answers[1].upper()}\nwrong\n\n".encode()
    done = program(*arguments, stdin=script)
    assert done.code == 0
    told = json.loads(program(*arguments, "--json", stdin=script).text)
    assert [turn["points"] for turn in told["turns"]] == [3, 1, 0, 0] and told["points"] == 4
    assert [turn["helped"] for turn in told["turns"]] == [False, True, False, False]
    assert told["model_points"] == blank["model_points"] == sum(t["model_points"] for t in told["turns"])
    assert f"After 4 rounds: you 4 points (2 right), {base} {told['model_points']} points" in done.text
    assert f'The text goes on " {answers[0]}".' in done.text and "you passed" in done.text
    assert done.said[-1] == "seed 5"


def test_a_number_takes_a_hint_only_after_asking(program: Program, base: Path, story: Path) -> None:
    arguments = ("play", "story.txt", "-m", str(base), "--rounds", "1", "--seed", "5", "--json")
    asked = json.loads(program(*arguments, stdin=b"?\n2\n").text)["turns"][0]
    typed = json.loads(program(*arguments, stdin=b"2\n").text)["turns"][0]
    assert typed["guess"] == "2" and asked["guess"].isalpha() and asked["helped"] and not typed["helped"]
    said = program(*arguments, stdin=b"?\n2\n").said
    assert any(line.startswith('  2  " ' + asked["guess"]) for line in said)


@pytest.mark.parametrize(("stdin", "ended"), [(b"x\nq\n", "quit"), (b"x\n", "input"), (b"x\n?\n", "input")])
def test_quitting_is_polite(program: Program, base: Path, story: Path, stdin: bytes, ended: str) -> None:
    arguments = ("play", "story.txt", "-m", str(base), "--rounds", "3", "--seed", "1")
    done = program(*arguments, stdin=stdin)
    assert done.code == 0 and "After 1 round: you 0 points" in done.text
    assert json.loads(program(*arguments, "--json", stdin=stdin).text)["ended"] == ended
    assert "No round was played." in program(*arguments).text


def test_fewer_places_than_rounds_is_said(program: Program, base: Path, story: Path) -> None:
    done = program("play", "story.txt", "-m", str(base), "--rounds", "60", "--seed", "1")
    assert any(line.startswith("story.txt has room for ") and line.endswith(" of 60") for line in done.said)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "bad.txt is empty"),
        (b"   \n", "bad.txt is empty"),
        (b"caf\xe9 au lait", "bad.txt is not UTF-8: byte 0xE9 at offset 3"),
        (b"Two words.", "no word to guess at"),
    ],
)
def test_a_file_that_cannot_be_played(
    program: Program, base: Path, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    done = program("play", "bad.txt", "-m", str(base))
    assert done.code == 2 and done.out == b"" and words in done.said[-1] and done.said[-1].count("\n") == 0


def test_a_file_that_is_not_there(program: Program, base: Path) -> None:
    done = program("play", "missing.txt", "-m", str(base))
    assert done.code == 2 and "missing.txt" in done.said[-1] and "does not exist" in done.said[-1]
