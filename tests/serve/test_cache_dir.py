"""`pophood serve --cache-dir`: a long system prompt survives a restart, a kill, and a damaged folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pophood.cli.app import pophood
from pophood.serve.guard.keys import VARIABLE
from tests import processes
from tests.conftest import ROOT
from tests.needs import linux
from tests.processes import HANG_SECONDS
from tests.serve.command import Command, command
from tests.serve.wire import request

SYSTEM = "the cat sat on the mat and the dog ran to the house " * 36


def asked(running: Command, question: str, **fields: Any) -> tuple[Any, int, int]:
    """Return the choices of a completion, its cached tokens, and those of its prompt."""
    body = {"prompt": SYSTEM + question, "max_tokens": 6, "seed": 3, "logprobs": 2} | fields
    response = request(running.port, "/v1/completions", key=running.key, body=body)
    assert response.status == 200, response.body
    usage = response.json["usage"]
    return response.json["choices"], usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.prefix"))


def test_a_restart_finds_the_system_prompt_and_answers_with_the_same_bits(
    tiny_chat: Path, tmp_path: Path
) -> None:
    linux()
    folder = tmp_path / "cache"
    arguments = ("--cache-dir", str(folder), "--cache-size", "64M")
    questions = ["where is the cat", "who ran", "zebra"]
    with command(tiny_chat, *arguments, home=tmp_path) as running:
        assert running.facts["cache_dir"] == str(folder)
        assert running.facts["cache_bytes"] == 64 << 20
        choices, cached, tokens = asked(running, questions[0])
        assert cached == 0
        alone = [choices, *(asked(running, question)[0] for question in questions[1:])]
        running.signal(signal.SIGINT)
        assert running.exit_code() == 130
    stored = files_of(folder)
    assert len(stored) == tokens // 128 > 0
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in stored} == {0o600}
    content = stored[1].read_bytes()
    stored[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = []
    with command(tiny_chat, *arguments, home=tmp_path) as running:
        for question, before in zip(questions, alone, strict=True):
            choices, cached, _ = asked(running, question)
            assert choices == before
            found.append(cached)
        asked(running, questions[0], prompt="another text")
        end = time.monotonic() + HANG_SECONDS
        while stored[1].read_bytes() != content and time.monotonic() < end:
            time.sleep(0.01)
        running.process.kill()
        running.exit_code()
    assert found[0] < len(stored) * 128 <= min(found[1:])
    told = [line for line in running.said if str(folder) in line]
    assert [str(stored[1]) in line for line in told] == [True]
    with command(tiny_chat, *arguments, home=tmp_path) as running:
        choices, cached, tokens = asked(running, questions[1])
        assert choices == alone[1]
        assert cached == len(stored) * 128, "what was used twice was written before the kill"
        assert not any(str(folder) in line for line in running.said)


@pytest.mark.parametrize("starts", [1, pytest.param(2, marks=pytest.mark.full)])
def test_the_example_of_the_page_says_what_the_page_shows(
    tiny_chat: Path, tmp_path: Path, starts: int
) -> None:
    """The folder is empty at the first start, and has what the answer needed at the second."""
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    found = re.search(r"^\$ pophood (serve .*--cache-dir.*)\n\.\.\.\n(Cache .*)$", page, re.MULTILINE)
    assert found is not None
    words = [str(tiny_chat) if word == "smollm2" else word for word in found[1].split()]
    settings = {**os.environ, "POPHOOD_HOME": str(tmp_path), "POPHOOD_OFFLINE": "1", VARIABLE: "key-" * 4}
    rows = []
    for _ in range(starts):
        with processes.started(
            [sys.executable, "-m", "pophood", *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=settings,
            cwd=tmp_path,
        ) as process:
            assert process.stdout is not None
            printed = []
            for line in process.stdout:
                printed.append(line.rstrip())
                if "Ctrl-C" in line:
                    break
            port = int(printed[0].rpartition(":")[2].partition("/")[0])
            body = {"prompt": SYSTEM, "max_tokens": 1}
            assert request(port, "/v1/completions", key=settings[VARIABLE], body=body).status == 200
            process.terminate()
            assert process.wait(HANG_SECONDS) == 143
        rows += [line for line in printed if line.startswith("Cache")]
    assert rows[0] == found[2].replace("/data", str(tmp_path))
    number = len(files_of(tmp_path / "prefixes"))
    assert number and all(f"({number} files, " in row for row in rows[1:])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--cache-size", "1G"], 2, "--cache-dir"),
        (["--cache-dir", "fresh", "--cache-size", "much"], 2, "512M"),
        (["--cache-dir", "open"], 2, "chmod 700"),
        (["--cache-dir", "file"], 2, "file"),
        (["--cache-dir", "file/cache"], 1, "cannot be made"),
    ],
)
def test_a_cache_that_cannot_be_is_one_line(
    tiny_chat: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    linux()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(
        pophood, ["serve", str(tiny_chat), "--port", "0", *arguments], env={"POPHOOD_HOME": str(tmp_path)}
    )
    assert (done.exit_code, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]
