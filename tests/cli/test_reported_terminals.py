"""Terminal and pipe bugs that users reported in other programs do not occur in pophood."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

import pophood
from tests import processes
from tests.cli.conftest import Program
from tests.cli.terminal import CTRL_C, CTRL_D, SLOW, terminal
from tests.cli.test_chat import ENDLESS, SHORT


def test_a_pipe_of_one_line_ends_without_a_complaint(program: Program, talker: Path) -> None:
    """simonw/llm #606: `echo hello | llm chat` answered, then printed "Aborted!" and failed."""
    done = program("chat", "-m", str(talker), *SHORT, stdin=b"hello world\n")
    assert done.code == 0 and "bort" not in "".join(done.said)


def test_an_empty_stdin_ends_a_conversation(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """llama.cpp #12949: with `< /dev/null` it read empty turns forever."""
    with Path(os.devnull).open("rb") as nothing:
        done = processes.run(
            [sys.executable, "-m", "pophood", "chat", "-m", str(talker), *SHORT],
            stdin=nothing, stdout=PIPE, stderr=PIPE, env=os.environ | settings, cwd=tmp_path,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"")


def test_ctrl_d_leaves_and_a_half_typed_line_is_not_sent(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """llama.cpp #12949, second part: Ctrl-D acted as Enter."""
    with terminal(("chat", "-m", str(talker), *SHORT), settings, tmp_path) as screen:
        screen.until(">>> ")
        screen.type("half")
        screen.until("half")
        screen.type(CTRL_D)  # deletes nothing, sends nothing, as in a shell
        screen.type(b"\x15" + CTRL_D)
        assert screen.ended() == 0
        assert "tokens of context" not in screen.text


@pytest.mark.parametrize("command", ["run", "chat"])
def test_no_colour_is_left_behind_by_ctrl_c(
    command: str, base: Path, talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """llama.cpp PR 283, ramalama #578: the terminal kept the colour of the interrupted text."""
    model = base if command == "run" else talker
    more = ENDLESS if command == "chat" else ("-n", "0")
    with terminal((command, "Hello", "-m", str(model), *more), settings, tmp_path, SLOW) as screen:
        screen.until(str(model))
        screen.until("\n")
        screen.grow(20)
        screen.type(CTRL_C)
        screen.until("ended by Ctrl-C")
        assert screen.ended() == 130
        styles = re.findall(r"\x1b\[[\d;]*m", screen.text)
    assert not styles or styles[-1] == "\x1b[0m"


def test_a_pasted_text_of_several_lines_is_one_message(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    """ollama #357: each line of a pasted text became a question. Terminals mark a paste (xterm)."""
    with terminal(("chat", "-m", str(talker), *SHORT), settings, tmp_path) as screen:
        screen.until(">>> ")
        if "\x1b[?2004h" not in screen.text:
            pytest.skip("needs tool: a readline that knows of pastes (8.1)")
        screen.type("\x1b[200~first line\nsecond line\x1b[201~")
        screen.until("second line")
        screen.type("\n")
        screen.until("of context]")
        screen.until(">>> ")
        screen.type("/show\n")
        shown = screen.until("assistant:")
        assert "user:\r\nfirst line\r\nsecond line\r\n" in shown
        screen.until(">>> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0


def test_a_terminal_that_is_closed_ends_it(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """LlamaGPTJ-chat #16: after its parent had ended, the program kept a core busy."""
    with terminal(("chat", "-m", str(talker), *ENDLESS), settings, tmp_path, SLOW) as screen:
        screen.until(">>> ")
        screen.hang_up()
        assert screen.ended() != 0


def test_a_parent_that_leaves_a_pipe_ends_it(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pophood", "chat", "-m", str(talker), *SHORT]
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    with processes.started_bytes(command, **streams, env=os.environ | settings, cwd=tmp_path) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stderr.readline()
        process.stdin.close()
        assert process.wait(processes.HANG_SECONDS) == 0


@pytest.mark.parametrize("text", ["🔥", "日本", "👩\u200d👩", "é"])
def test_characters_of_several_tokens_are_shown_whole(program: Program, base: Path, text: str) -> None:
    """mlx-examples #1142, ChatGLM-6B #478: a partial character crashed the stream, or was shown as U+FFFD."""
    lm = pophood.load(base)
    ids = lm.tokenize(text)
    forced = [word for id_ in set(ids) for word in ("--logit-bias", f"{id_}=100")]
    hot = ("-n", "60", "--temperature", "100", "--top-k", str(len(set(ids))), "--seed", "1")
    done = program("run", "a", "-m", str(base), *hot, *forced, "--json")
    output = json.loads(done.text)["outputs"][0]
    made = [token["id"] for token in output["tokens"]]
    assert set(made) <= set(ids)
    assert output["completion"] == lm.detokenize(made), "piece by piece as in one go"
    assert "\ufffd" not in lm.detokenize(ids) and lm.detokenize(ids) == text


@pytest.mark.parametrize("command", [("look", "next"), ("demo",), ("show",), ("list",)])
def test_a_pipe_gets_no_colours(process: Program, base: Path, command: tuple[str, ...]) -> None:
    """paiml/aprender #662: escape codes were written to pipes, and NO_COLOR had no effect."""
    model = () if command == ("list",) else (str(base),) if command == ("show",) else ("-m", str(base))
    for more in ({}, {"NO_COLOR": "1"}, {"COLORTERM": "truecolor", "TERM": "xterm-256color"}):
        assert b"\x1b" not in process(*command, *model, **more).out


@pytest.mark.parametrize("command", [("look", "tokens"), ("run", "a", "--samples", "9"), ("show",)])
def test_a_reader_that_leaves_at_once_causes_no_traceback(
    base: Path, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    """tldr-python-client #166: `| head` ended in a BrokenPipeError."""
    model = (str(base),) if command == ("show",) else ("-m", str(base))
    line = [sys.executable, "-m", "pophood", *command, *model]
    with processes.started_bytes(line, stdout=PIPE, stderr=PIPE, env=os.environ | settings) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(processes.HANG_SECONDS)
    assert b"Traceback" not in said and b"BrokenPipe" not in said and b"Exception ignored" not in said


def test_a_stopped_program_goes_on(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    """After Ctrl-Z and `fg` the prompt is back, and the next line is read."""
    with terminal(("chat", "-m", str(talker), *SHORT), settings, tmp_path) as screen:
        screen.until(">>> ")
        os.kill(screen.process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(screen.process.pid, signal.SIGCONT)
        screen.type("Hello\n")
        screen.until("of context]")
        screen.until(">>> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0
