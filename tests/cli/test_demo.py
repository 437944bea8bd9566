"""`pophood demo`, and the proof that it makes no connection."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from pophood.cli.session import this_command
from tests import processes
from tests.cli.conftest import Ended, Program

LINE = re.compile(r"Output ( \d|10): The capital of Spain is")


@pytest.fixture
def shared(base: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a shared folder with a model named gpt2, which becomes the default."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "gpt2").symlink_to(base, target_is_directory=True)
    return {"POPHOOD_MODELS": str(tmp_path / "shared")}


def test_the_demo_shows_what_the_talk_shows(program: Program, shared: dict[str, str]) -> None:
    done = program("demo", **shared)
    assert done.code == 0, done.said
    assert done.said[0].startswith("gpt2 at f32, ")
    blocks = dict(zip(("prompt", "words", "tokens", "next", "time", "try"), sections(done), strict=True))
    assert blocks["prompt"].startswith(
        "Prompt: The capital of Spain is\n\nOutput  1: The capital of Spain is"
    )
    assert len(LINE.findall(blocks["prompt"])) == 10
    counts = [int(found) for found in re.findall(r"^\S+ +(\d+) ", blocks["words"], re.MULTILINE)]
    assert sum(counts) == 10
    assert re.search(r'^ +0 +464  "The"\n +1 +3139  " capital"\n', blocks["tokens"], re.MULTILINE)
    rows = blocks["next"].splitlines()
    assert rows[0].split() == ["token_id", "token_text", "logit", "probability"]
    assert len(rows) == 11
    assert re.match(
        r"Time: [\d.]+ s \(CPU\) for one text of 10 new tokens, .* the talk's: 0.17 s\n", blocks["time"]
    )
    assert len(blocks["try"].splitlines()) == 3


def sections(done: Ended) -> list[str]:
    """Return the demo's output, split at the first line of each part."""
    heads = (
        "first word +",
        "The prompt as tokens:\n",
        "The ten likeliest next tokens:\n",
        "(?=Time: )",
        "Try next:\n",
    )
    return re.split("|".join(f"\n\n{head}" for head in heads), done.text)


def test_the_same_demo_as_json(program: Program, shared: dict[str, str]) -> None:
    told = json.loads(program("demo", "--json", "-q", **shared).text)
    assert len(told["outputs"]) == 10
    assert sum(word["count"] for word in told["first_words"]) == 10
    assert [row["token_id"] for row in told["tokens"]] == [464, 3139, 286, 8602, 318]
    assert len(told["next"]) == 10
    assert (told["sampling"]["top_k"], told["sampling"]["temperature"]) == (40, 0.8)
    shown = program("demo", **shared).text
    for number, output in enumerate(told["outputs"], 1):
        assert f"Output {number:>2}: {output['text']}\n" in shown, "the seed is fixed"


def test_the_three_lines_run_as_they_stand(
    process: Program, shared: dict[str, str], settings: dict[str, str], tmp_path: Path
) -> None:
    lines = process("demo", **shared).text.split("Try next:\n")[1].splitlines()
    assert len(lines) == 3
    for line in lines:
        done = processes.run(
            line,
            shell=True,
            cwd=tmp_path,
            env=os.environ | settings | shared,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout
    assert "story.html" in lines[1] and (tmp_path / "story.html").is_file()


def test_the_command_of_this_installation_runs(tmp_path: Path) -> None:
    done = processes.run(f"{this_command()} --version", shell=True, capture_output=True, check=True)
    assert done.stdout.startswith(b"pophood ")


def test_the_proof_prints_that_nothing_was_attempted(process: Program, shared: dict[str, str]) -> None:
    done = process("doctor", "--prove-offline", **(shared | {"POPHOOD_OFFLINE": ""}))
    assert done.code == 0, done.said
    lines = done.text.splitlines()
    assert "Connections attempted: none" in lines
    if sys.platform == "linux":
        assert "Sockets open at the end: none" in lines
    told = json.loads(process("doctor", "--prove-offline", "--json", "-q", **shared).text)
    assert told["attempts"] == [] and told["demo_ran"] is True


def test_the_proof_fails_when_something_tries(shared: dict[str, str], settings: dict[str, str]) -> None:
    """A connection attempt whose error is suppressed is still reported."""
    code = (
        "import contextlib, sys\nfrom pophood.model.lm import LM\nquiet = LM.tokens\n"
        "def nosy(self, text):\n"
        "    with contextlib.suppress(Exception):\n"
        "        import socket; socket.create_connection(('127.0.0.1', 9), 0.1)\n"
        "    return quiet(self, text)\n"
        "LM.tokens = nosy\nfrom pophood.cli import main\nmain()"
    )
    done = processes.run(
        [sys.executable, "-c", code, "doctor", "--prove-offline"],
        env=os.environ | settings | shared,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"Connections attempted: \d", done.stdout)
    assert "socket." in done.stdout.split("Connections attempted: ")[1]
