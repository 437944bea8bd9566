"""`pophood batch` as a user sees it: files and pipes, exit codes, progress, Ctrl-C, kills, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

import pophood
from tests import needs, processes
from tests.cli.conftest import Program

SPAIN = {"prompt": "The capital of Spain is", "max_tokens": 5}


def write(path: Path, lines: list[Any]) -> Path:
    """Write lines, as JSON unless they are text."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def answers(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_is_answered_line_by_line(program: Program, base: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [SPAIN | {"id": 7}, "", {"text": "a cat", "score": True}])
    done = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base), "--greedy")
    assert done.code == 0 and done.out == b""
    first, second = answers(tmp_path / "out.jsonl")
    alone = pophood.load(base).generate(str(SPAIN["prompt"]), max_tokens=5, temperature=0).completion
    assert (first["line"], first["id"], first["outputs"][0]["completion"]) == (1, 7, alone)
    assert second["line"] == 3 and second["scored"] == len(second["token_ids"]) - 1
    assert done.said[-1].startswith("2 lines answered, 5 tokens in ")


def test_bad_lines_are_told_by_number_and_the_rest_goes_on(
    program: Program, base: Path, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [SPAIN, "oops", SPAIN | {"temprature": 1}, *["{}"] * 20, SPAIN])
    done = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base), "--json")
    assert done.code == 1
    assert "in.jsonl:2: the line is not JSON: Expecting value" in done.said[1]
    assert "in.jsonl:3: Unrecognized request argument supplied: 'temprature'" in done.said[2]
    assert "in.jsonl: further errors are in out.jsonl alone" in done.said
    assert done.said[-1].endswith("; 22 lines failed (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...)")
    told = json.loads(done.text)
    assert (told["lines"], told["failed"], told["failed_lines"]) == (24, 22, [2, 3, *range(4, 24)])
    assert told["new_tokens"] == 10 and told["interrupted"] is False
    again = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base))
    assert again.code == 1 and "out.jsonl: 24 lines answered before, going on" in again.said
    assert again.said[-1] == "24 lines answered; 22 lines failed"


def test_pipes(process: Program, base: Path, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [SPAIN, "oops", SPAIN | {"seed": 1}])
    data = (tmp_path / "in.jsonl").read_bytes()
    done = process("batch", "-", "-o", "-", "-m", str(base), "--seed", "3", "-q", stdin=data)
    assert done.code == 1 and done.err == b""
    told = [json.loads(line) for line in done.text.splitlines()]
    assert [one["line"] for one in told] == [1, 2, 3] and "error" in told[1]
    process("batch", "-", "-o", "out.jsonl", "-m", str(base), "--seed", "3", stdin=data)
    assert answers(tmp_path / "out.jsonl") == told
    more = data + json.dumps(SPAIN).encode()
    done = process("batch", "-", "-o", "out.jsonl", "-m", str(base), stdin=more)
    assert "out.jsonl: 3 lines answered before, going on" in done.said, "the seed is that of the run"
    assert len(answers(tmp_path / "out.jsonl")) == 4


def test_options_are_the_settings_of_lines_that_name_none(
    program: Program, talker: Path, tmp_path: Path
) -> None:
    talk = {"messages": [{"role": "user", "content": "Hi"}]}
    openai = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": talk}
    write(tmp_path / "in.jsonl", [{"prompt": "a"}, talk, openai, {"prompt": "a", "max_tokens": 2}])
    options = ("-n", "3", "--temperature", "1.5", "--top-k", "0", "--logit-bias", "9=-inf", "--stop", "zzz")
    done = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(talker), *options, "--seed", "5")
    assert done.code == 0, done.said
    one, two, three, four = answers(tmp_path / "out.jsonl")
    assert (one["new_tokens"], two["new_tokens"], four["new_tokens"]) == (3, 3, 2)
    assert three["response"]["body"]["usage"]["completion_tokens"] == 3
    lm = pophood.load(talker)
    keywords = {"temperature": 1.5, "top_k": 0, "logit_bias": {9: -float("inf")}}
    wanted = lm.generate("a", max_tokens=3, seed=one["seed"], **keywords).completion
    assert one["outputs"][0]["completion"] == wanted
    told = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(talker), *options, "--temperature", "1")
    assert told.code == 2 and "another value of temperature (1.5, now 1.0)" in told.said[-1]
    told = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(talker), "--overwrite", "-q")
    assert told.code == 0 and answers(tmp_path / "out.jsonl")[0]["new_tokens"] > 3


def test_other_names_of_the_model(program: Program, base: Path, tmp_path: Path) -> None:
    lines = [SPAIN | {"model": name} for name in ("gpt-4o-mini", str(base), base.name, "other")]
    write(tmp_path / "in.jsonl", lines)
    done = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base), "--alias", "gpt-4o-mini")
    assert done.code == 1
    assert ["error" in one for one in answers(tmp_path / "out.jsonl")] == [False, False, False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.jsonl", "-o", "out.jsonl"), "none.jsonl: does not exist; check the path"),
        (("in.jsonl",), "Missing option '-o'"),
        (("in.jsonl", "-o", "no/out.jsonl"), "no/out.jsonl: the folder no does not exist"),
        (("in.jsonl", "-o", "in.jsonl"), "in.jsonl: is the file of requests; name another for the answers"),
        (("in.jsonl", "-o", "-", "--json"), "--json prints a summary on stdout"),
        (("in.jsonl", "-o", "mine.jsonl"), "mine.jsonl: is there, and mine.jsonl.run is not"),
        (("in.jsonl", "-o", "out.jsonl", "--temperature", "-1"), "temperature (divisor of the logits,"),
        (("wide.jsonl", "-o", "out.jsonl"), "wide.jsonl is UTF-16; wanted UTF-8"),
    ],
)
def test_wrong_calls_are_one_line(
    program: Program, base: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    write(tmp_path / "in.jsonl", [SPAIN])
    (tmp_path / "mine.jsonl").write_text("mine", encoding="utf-8")
    (tmp_path / "wide.jsonl").write_text("{}", encoding="utf-16")
    done = program("batch", *arguments, "-m", str(base))
    assert done.code in (1, 2) and said in done.said[-1], done.said
    assert (tmp_path / "mine.jsonl").read_text() == "mine"
    assert json.loads((tmp_path / "in.jsonl").read_text()) == SPAIN


def test_progress_in_a_pipe(
    program: Program, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pophood.cli.screens.batch.EVERY", 0.0)
    monkeypatch.setattr("pophood.cli.screens.batch.REFRESH", 0.0)
    write(tmp_path / "in.jsonl", [SPAIN] * 40)
    said = program("batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base)).said
    assert any("of 40 lines, " in line and "tokens/s, " in line and " left" in line for line in said), said


# Interruptions -------------------------------------------------------------------------------------------

LONG = [{"prompt": f"Once upon a time {i}", "max_tokens": 12 + i % 30, "n": 1 + i % 2} for i in range(120)]


def command(base: Path, *more: str) -> list[str]:
    words = ["batch", "in.jsonl", "-o", "out.jsonl", "-m", str(base), "--seed", "9", "--threads", "1", *more]
    return [sys.executable, "-m", "pophood", *words]


def whole(program: Program, base: Path, tmp_path: Path) -> bytes:
    """Return the answers of a run that nothing interrupted, and remove them."""
    write(tmp_path / "in.jsonl", LONG)
    assert program(*command(base)[3:]).code == 0
    data = (tmp_path / "out.jsonl").read_bytes()
    for name in ("out.jsonl", "out.jsonl.run"):
        (tmp_path / name).unlink()
    return data


def test_ctrl_c_says_how_to_go_on(
    program: Program, base: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    needs.linux()
    wanted = whole(program, base, tmp_path)
    environment = os.environ | settings
    with processes.started(
        command(base, "--together", "2"), stderr=PIPE, cwd=tmp_path, env=environment
    ) as running:
        out = tmp_path / "out.jsonl"
        while not out.exists() or not out.stat().st_size:
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate()
    assert running.returncode == 130, said
    assert "; ended by Ctrl-C; the same command goes on" in said.splitlines()[-1]
    kept = out.read_bytes()
    assert wanted.startswith(kept) and kept.endswith(b"\n") and len(kept) < len(wanted)
    assert program(*command(base)[3:]).code == 0
    assert out.read_bytes() == wanted


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.full)])
def test_killed_at_random_moments(
    program: Program, base: Path, tmp_path: Path, settings: dict[str, str], kills: int
) -> None:
    """No answer is lost and none comes twice: the file has the bytes of a run that nothing interrupted."""
    needs.linux()
    wanted, chance = whole(program, base, tmp_path), random.Random(kills)
    out, kept, cut = tmp_path / "out.jsonl", b"", 0
    for _ in range(kills):
        with processes.started(
            command(base, "--together", str(chance.choice([2, 5]))),
            stderr=PIPE,
            cwd=tmp_path,
            env=os.environ | settings,
        ) as running:
            # From the moment at which it computes: what comes before is the same for all.
            size = len(kept)
            while running.poll() is None and (out.stat().st_size if out.exists() else 0) <= size:
                time.sleep(0.002)
            time.sleep(chance.random() * 0.1)
            cut += running.poll() is None
            running.kill()
        now = out.read_bytes()
        assert now.startswith(kept) and wanted.startswith(now), "nothing that was written changes"
        kept = now
    assert cut >= min(kills, 3)
    assert program(*command(base)[3:]).code == 0
    assert out.read_bytes() == wanted


def test_a_full_disk_is_told_and_nothing_is_lost(
    program: Program, base: Path, tmp_path: Path, settings: dict[str, str]
) -> None:
    """The limit of a file's size stands in for the disk's: the write that reaches it fails."""
    needs.linux()
    wanted = whole(program, base, tmp_path)
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(wanted) // 2}, {len(wanted)}))\n"
        "from pophood.cli import main; main()"
    )
    done = processes.run(
        [sys.executable, "-c", code, *command(base)[3:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | settings,
    )
    assert done.returncode == 1
    assert "out.jsonl: the disk is full: needed " in done.stderr.splitlines()[-1]
    kept = (tmp_path / "out.jsonl").read_bytes()
    assert wanted.startswith(kept) and kept.endswith(b"\n")
    assert program(*command(base)[3:]).code == 0
    assert (tmp_path / "out.jsonl").read_bytes() == wanted
