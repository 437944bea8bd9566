"""`pophood chat`: single answers, and turns through a pipe or a terminal with history and commands."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE

from tests import processes
from tests.cli.conftest import Program
from tests.cli.terminal import SLOW

SHORT = ("-n", "3", "--seed", "1")
# Without stop tokens only the full context or Ctrl-C ends an answer.
ENDLESS = ("-n", "0", "--logit-bias", "<|im_end|>=-inf", "--logit-bias", "<|endoftext|>=-inf")


def contexts(said: list[str]) -> list[int]:
    """Return the number of context tokens in use after each answer."""
    words = [line.rsplit("; ", 1)[1] for line in said if line.endswith("tokens of context]")]
    return [int(text.split(" of ")[0].replace(",", "")) for text in words]


def test_one_question_one_answer(program: Program, talker: Path) -> None:
    done = program("chat", "Hello", "-m", str(talker), *SHORT)
    assert done.code == 0
    assert done.text.endswith("\n") and "Hello" not in done.text
    assert done.said[0] == f"{talker} at f32, {talker}"
    assert contexts(done.said) != []
    told = json.loads(program("chat", "Hello", "-m", str(talker), *SHORT, "--json", "-q").text)
    assert told["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": done.text[:-1]},
    ]
    assert program("chat", "-", "-m", str(talker), *SHORT, stdin=b"Hello\n").text == done.text


def test_a_base_model_is_refused_with_the_way_out(program: Program, base: Path) -> None:
    done = program("chat", "Hello", "-m", str(base))
    assert done.code == 2 and done.out == b""
    assert "completion model" in done.said[-1] and "pophood run" in done.said[-1]


def test_a_pipe_takes_turns_that_remember(program: Program, talker: Path) -> None:
    turns = b"Hello\n\nAgain\n/reset\nHello\n"
    done = program("chat", "-m", str(talker), *SHORT, stdin=turns)
    assert done.code == 0
    first, second, third = contexts(done.said)
    assert first < second and third == first, "the history grows, and /reset forgets it"
    assert ">>>" not in done.text + "".join(done.said)


def test_the_system_text_is_told_to_the_model(program: Program, talker: Path, tmp_path: Path) -> None:
    talk = b"/system\n/system Be brief.\nHello\n/save talk.json\n/save talk.txt\n/reset\n/show\n"
    done = program("chat", "-m", str(talker), *SHORT, stdin=talk)
    assert done.code == 0
    assert [line for line in done.said if line.startswith("there is no system text")]
    assert done.text.endswith("system:\nBe brief.\n"), "/reset keeps it"
    saved = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert [m["role"] for m in saved] == ["system", "user", "assistant"]
    assert (tmp_path / "talk.txt").read_text("utf-8").startswith("system:\nBe brief.\n\nuser:\nHello\n")
    given = program("chat", "Hello", "--system", "Be brief.", "-m", str(talker), *SHORT, "--json", "-q")
    assert json.loads(given.text)["messages"] == saved


def test_saving_never_overwrites_what_is_not_ours(program: Program, talker: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    talk = b"/save mine.txt\n/save no/such/folder.txt\n/save\nHi\n/save new.txt\nHi\n/save new.txt\n"
    done = program("chat", "-m", str(talker), *SHORT, stdin=talk)
    assert done.code == 1
    assert (tmp_path / "mine.txt").read_text("utf-8") == "precious"
    assert [line for line in done.said if "exists already" in line]
    assert [line for line in done.said if "the folder no/such does not exist" in line]
    assert [line for line in done.said if "wants a file name" in line]
    assert (tmp_path / "new.txt").read_text("utf-8").count("user:\nHi\n") == 2


def test_commands_and_messages_with_a_slash(program: Program, talker: Path, tmp_path: Path) -> None:
    talk = b"/hepl\n/help\n//etc/hosts\n/save talk.json\n/exit\nnever read\n"
    done = program("chat", "-m", str(talker), *SHORT, stdin=talk)
    assert done.code == 1
    assert "/hepl is not a command" in done.said[1]
    assert "/system TEXT" in done.text
    messages = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == ["/etc/hosts"]


def test_a_full_context_is_said_and_the_talk_goes_on(program: Program, talker: Path) -> None:
    done = program("chat", "-m", str(talker), *SHORT, stdin=b"Hi\n" + b"word " * 400 + b"\nHi\n")
    assert done.code == 1
    full = [line for line in done.said if line.startswith("pophood: the conversation has ")]
    assert len(full) == 1 and " holds 256: /reset " in full[0]
    first, second = contexts(done.said)
    assert second < 2 * first + 20, "the message that did not fit is not in the history"


def test_special_tokens_in_a_message_are_text(program: Program, talker: Path) -> None:
    plain = program("chat", "-m", str(talker), *SHORT, stdin=b"im_end\n")
    tricky = program("chat", "-m", str(talker), *SHORT, stdin=b"<|im_end|>\n")
    assert contexts(tricky.said)[0] > contexts(plain.said)[0]


def test_bytes_that_are_not_utf8_are_refused_line_by_line(program: Program, talker: Path) -> None:
    done = program("chat", "-m", str(talker), *SHORT, stdin=b"caf\xe9\nHi\n")
    assert done.code == 1
    assert len(contexts(done.said)) == 1
    assert [line for line in done.said if line.startswith("pophood: ") and "character" in line]


def test_narrow_consoles(process: Program, talker: Path) -> None:
    hot = ("-n", "40", "--temperature", "50", "--top-k", "0", "--seed", "3")
    done = process("chat", "caf\u00e9", "-m", str(talker), *hot, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert done.code == 0
    done.out.decode("ascii")


def test_ctrl_c_in_a_single_answer_keeps_it_and_leaves_with_130(
    talker: Path, settings: dict[str, str]
) -> None:
    command = [sys.executable, "-c", SLOW, "chat", "Hello", "-m", str(talker), *ENDLESS]
    with processes.started_bytes(command, stdout=PIPE, stderr=PIPE, env=os.environ | settings) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=processes.HANG_SECONDS)
    assert process.returncode == 130
    assert (first + rest).endswith(b"\n")
    assert b"ended by Ctrl-C" in said and b"Traceback" not in said
