"""Piped text goes before the prompt of a command; an stdin that is not meant as text is ignored."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.cli.conftest import Ended, Program

PIPED, ASKED = "Its name is Madrid.", "Which city?"
BOTH = f"{PIPED}\n\n{ASKED}"
SHORT = ("-n", "2", "--greedy", "--json")


def start(
    arguments: tuple[str, ...], settings: dict[str, str], folder: Path, stdin: int | None = None
) -> Ended:
    """Run pophood with an stdin that the test controls and that stays open during the run."""
    done = processes.run(
        [sys.executable, "-m", "pophood", *arguments],
        stdin=stdin,
        capture_output=True,
        env=os.environ | settings,
        cwd=folder,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def asked(done: Ended) -> str:
    """Return the message that a chat received."""
    assert done.code == 0, done.err
    return str(json.loads(done.text)["messages"][0]["content"])


# Piped text and a prompt --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_chat_reads_piped_text_before_its_question(program: Program, talker: Path, end: bytes) -> None:
    done = program("chat", ASKED, "-m", str(talker), *SHORT, stdin=PIPED.encode() + end)
    assert asked(done) == BOTH
    assert "stdin: 19 characters before the prompt" in done.said


def test_run_reads_piped_text_before_its_prompt_and_before_a_file(
    program: Program, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text(f"{ASKED}\n", encoding="utf-8")
    piped = f"{PIPED}\n".encode()
    for given in ((ASKED,), ("-f", "prompt.txt")):
        told = json.loads(program("run", *given, "-m", str(base), *SHORT, stdin=piped).text)
        assert told["prompt"] == BOTH and told["outputs"][0]["text"].startswith(BOTH)
    kept = program("run", ASKED, "--keep-newline", "-m", str(base), *SHORT, stdin=piped)
    assert json.loads(kept.text)["prompt"] == f"{PIPED}\n{ASKED}", "joined as they are"


@pytest.mark.parametrize(
    "view",
    ["tokens", "before", "hidden", "norm", "residual", "dropout", "attention", "feedforward", "output",
     "next", "surprise", "lens"],
)  # fmt: skip
def test_every_view_of_a_text_reads_what_is_piped(
    program: Program, base: Path, tmp_path: Path, view: str
) -> None:
    (tmp_path / "text.txt").write_text(ASKED, encoding="utf-8")
    arguments = ("look", view, "-m", str(base), "--json")
    piped = f"{PIPED}\n".encode()
    assert json.loads(program(*arguments, stdin=piped).text)["text"] == PIPED, "instead of the talk's prompt"
    assert json.loads(program(*arguments, ASKED, stdin=piped).text)["text"] == BOTH
    assert json.loads(program(*arguments, "-f", "text.txt", stdin=piped).text)["text"] == BOTH
    assert json.loads(program(*arguments, stdin=b"").text)["text"] == "The capital of Spain is"


def test_a_trace_reads_what_is_piped(program: Program, base: Path) -> None:
    arguments = ("look", "trace", "-m", str(base), "--taps", "blocks.0.resid_post", "--json")
    shape = json.loads(program(*arguments, stdin=b"one two three four five six seven\n").text)[0]["shape"]
    assert shape.startswith("(7, ")


@pytest.mark.parametrize("blank", [b"", b"\n", b" \r\n\t\n"])
def test_blank_stdin_is_no_text(program: Program, talker: Path, base: Path, blank: bytes) -> None:
    done = program("chat", ASKED, "-m", str(talker), *SHORT, stdin=blank)
    assert asked(done) == ASKED and not [line for line in done.said if "stdin" in line]
    told = json.loads(program("run", ASKED, "-m", str(base), *SHORT, stdin=blank).text)
    assert told["prompt"] == ASKED


def test_piped_bytes_that_are_no_text_are_refused(program: Program, talker: Path, base: Path) -> None:
    for command, model in (("chat", talker), ("run", base)):
        done = program(command, ASKED, "-m", str(model), *SHORT, stdin=b"caf\xe9")
        assert done.code == 2 and done.out == b""
        utf16 = program(command, ASKED, "-m", str(model), *SHORT, stdin="Hello".encode("utf-16"))
        assert utf16.code == 2 and "UTF-16" in utf16.said[-1]


def test_a_prompt_from_stdin_is_read_once(program: Program, base: Path) -> None:
    for given in ((), ("-",), ("-f", "-")):
        told = json.loads(program("run", *given, "-m", str(base), *SHORT, stdin=b"Hello\n").text)
        assert told["prompt"] == "Hello"


def test_picking_takes_stdin_as_choices(program: Program, base: Path) -> None:
    done = program("run", ASKED, "--pick", "-m", str(base), "--json", stdin=b"1\nq\n")
    told = json.loads(done.text)
    assert told["prompt"] == ASKED and len(told["picks"]) == 1


# Stdin that is not meant as text -------------------------------------------------------------------------


@pytest.fixture
def idle_pipe() -> Iterator[int]:
    """Return a pipe that is neither written to nor closed, as some CI runners leave stdin."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("command", ["chat", "run", "look"])
def test_an_idle_pipe_neither_hangs_nor_changes_the_prompt(
    command: str, talker: Path, base: Path, settings: dict[str, str], tmp_path: Path, idle_pipe: int
) -> None:
    arguments = {
        "chat": ("chat", ASKED, "-m", str(talker), *SHORT),
        "run": ("run", ASKED, "-m", str(base), *SHORT),
        "look": ("look", "tokens", ASKED, "-m", str(base), "--json"),
    }[command]
    done = start(arguments, settings, tmp_path, idle_pipe)
    assert done.code == 0
    told = json.loads(done.text)
    got = asked(done) if command == "chat" else told["prompt" if command == "run" else "text"]
    assert got == ASKED
    assert [line for line in done.said if "within 5 s: continuing without it" in line], "nothing is silent"


def test_an_idle_socket_is_left_alone_too(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = start(("chat", ASKED, "-m", str(talker), *SHORT), settings, tmp_path, theirs.fileno())
    assert asked(done) == ASKED


@pytest.mark.parametrize("device", [os.devnull, "/dev/zero"])
def test_devices_are_left_alone(device: str, talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    if not Path(device).exists():
        pytest.skip(f"another operating system: no {device}")
    with Path(device).open("rb") as stdin:
        done = start(("chat", ASKED, "-m", str(talker), *SHORT), settings, tmp_path, stdin.fileno())
    assert asked(done) == ASKED
    assert not [line for line in done.said if "stdin" in line]


def test_a_file_is_read_unless_somebody_else_reads_it(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """A file as stdin is read with `< notes.txt`, but not inside a `while read` loop."""
    (tmp_path / "lines.txt").write_text("first\nsecond\n", encoding="utf-8")
    command = ("chat", ASKED, "-m", str(talker), *SHORT)
    with (tmp_path / "lines.txt").open("rb") as stdin:
        assert asked(start(command, settings, tmp_path, stdin.fileno())) == f"first\nsecond\n\n{ASKED}"
    with (tmp_path / "lines.txt").open("rb") as stdin:
        os.lseek(stdin.fileno(), 6, os.SEEK_SET)
        done = start(command, settings, tmp_path, stdin.fileno())
        assert asked(done) == ASKED
        assert os.lseek(stdin.fileno(), 0, os.SEEK_CUR) == 6, "the loop's next line is still there"
    assert [line for line in done.said if "another program is reading" in line]


def test_a_closed_stdin_is_none(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    shell = 'exec "$0" -m pophood "$@" <&-'
    done = processes.run(
        ["/bin/sh", "-c", shell, sys.executable, "chat", ASKED, "-m", str(talker), *SHORT],
        capture_output=True,
        env=os.environ | settings,
        cwd=tmp_path,
    )
    assert asked(Ended(done.returncode, done.stdout, done.stderr)) == ASKED


def test_a_slow_writer_is_waited_for(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """After the first piece of piped text, the rest is read to its end however long that takes."""
    command = [sys.executable, "-m", "pophood", "chat", ASKED, "-m", str(talker), *SHORT]
    with processes.started_bytes(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | settings, cwd=tmp_path
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        time.sleep(2)
        process.stdin.write(b"slow ")
        process.stdin.flush()
        time.sleep(7)
        process.stdin.write(b"text\n")
        process.stdin.close()
        told = json.loads(process.stdout.read())
    assert told["messages"][0]["content"] == f"slow text\n\n{ASKED}"


@pytest.mark.parametrize("command", [("chat",), ("run",), ("look",)])
def test_the_help_says_so(program: Program, command: tuple[str, ...]) -> None:
    assert "piped" in program(*command, "--help").text
