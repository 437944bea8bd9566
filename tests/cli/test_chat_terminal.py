"""`pophood chat` at a pseudo-terminal: Ctrl-C, lines typed during an answer, replaced files, loops."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pophood.cli.screens.generation import WINDOW, LoopGuard
from tests.cli.conftest import Program
from tests.cli.terminal import CTRL_C, CTRL_D, QUICK, SLOW, Screen, terminal
from tests.cli.test_chat import ENDLESS, SHORT

# Repeats one token, since answers of the tiny model do not go in circles by themselves.
STUCK = ("-n", "0", "--logit-bias", "a=1000")


@contextmanager
def chat(
    talker: Path, settings: dict[str, str], folder: Path, *options: str, program: str = SLOW
) -> Iterator[Screen]:
    with terminal(("chat", "-m", str(talker), *options), settings, folder, program) as screen:
        screen.until(">>> ")
        yield screen
    assert "Traceback" not in screen.text


def test_ctrl_c_clears_a_half_typed_line_and_pressed_twice_on_an_empty_one_leaves(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    with chat(talker, settings, tmp_path, *SHORT) as screen:
        for half in ("half a question", "/save x", '"""a message of'):
            screen.type(half)
            screen.until(half)
            screen.interrupt_line()
            assert "leaves" not in screen.until(">>> "), "a line was there to clear"
        screen.type("Hello\n")
        screen.until("tokens of context]")
        screen.until(">>> ")
        screen.interrupt_line()
        words = screen.until(">>> ")
        assert "Ctrl-C again leaves" in words and "/save FILE writes the conversation first" in words
        screen.type("half again")
        screen.until("half again")
        screen.interrupt_line()
        screen.until(">>> ")
        assert screen.process.poll() is None, "a line in between: the first press is forgotten"
        screen.interrupt_line()
        assert "Ctrl-C again leaves" in screen.until(">>> ")
        screen.interrupt_line()
        assert screen.ended() == 130


def test_ctrl_c_clears_a_message_of_several_lines(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    with chat(talker, settings, tmp_path, *SHORT) as screen:
        for begun in ('"""one\n', "one \\\n"):
            screen.type(begun)
            screen.until("... ")
            screen.interrupt_line()
            assert "leaves" not in screen.until(">>> ")
        screen.type("/show\n")
        screen.until("(nothing yet)")
        screen.until(">>> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0


def test_lines_typed_during_an_answer_are_the_next_messages(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    with chat(talker, settings, tmp_path, *ENDLESS) as screen:
        screen.type("first\n")
        screen.until("first\r\n")
        screen.grow()
        screen.type("second\n")
        screen.until("second\r\n")
        screen.grow()
        screen.type(CTRL_C)  # by default a terminal discards waiting input at an interrupt
        screen.until("ended by Ctrl-C")
        screen.until(">>> second\r\n")
        screen.grow()
        screen.type("third\nhalf")
        screen.grow()
        screen.type(CTRL_C)
        screen.until(">>> third\r\n")
        screen.grow()
        screen.type(CTRL_C)
        screen.until(">>> half")
        screen.type(" a line\n")
        screen.grow(16)
        screen.type(CTRL_C)
        screen.until("ended by Ctrl-C")
        screen.until(">>> ")
        screen.type("/save talk.json\n")
        screen.until("saved 8 messages")
        screen.until(">>> ")
        screen.type("/exit\n")
        assert screen.ended() == 0
    messages = json.loads((tmp_path / "talk.json").read_text("utf-8"))["messages"]
    assert [m["content"] for m in messages if m["role"] == "user"] == [
        "first",
        "second",
        "third",
        "half a line",
    ]


def test_saving_asks_before_it_overwrites(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious", encoding="utf-8")
    with chat(talker, settings, tmp_path, *SHORT) as screen:
        screen.type("Hello\n")
        screen.until("tokens of context]")
        screen.until(">>> ")
        for answer in ("n\n", "\n", "nonsense\n"):
            screen.type("/save mine.txt\n")
            screen.until("mine.txt exists already. Overwrite it? [y/N] ")
            screen.type(answer)
            screen.until("mine.txt is kept; the conversation is not saved")
            screen.until(">>> ")
            assert mine.read_text("utf-8") == "precious"
        screen.type("/save mine.txt\n")
        screen.until("Overwrite it? [y/N] ")
        screen.type("y\n")
        screen.until("saved 2 messages to mine.txt")
        screen.until(">>> ")
        screen.type("/save mine.txt\n")
        assert "Overwrite" not in screen.until("saved 2 messages"), "its own file is not asked about"
        screen.until(">>> ")
        screen.type(CTRL_D)
        assert screen.ended() == 0
    assert mine.read_text("utf-8").startswith("user:\nHello\n")


# Loops --------------------------------------------------------------------------------------------------


def test_an_answer_in_circles_is_stopped_at_a_terminal(
    talker: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    with chat(talker, settings, tmp_path, *STUCK, program=QUICK) as screen:
        screen.type("Hello\n")
        screen.until("ended since it went in circles")
        screen.until("stopped: the last 200 tokens only repeat the same 1 token (chat --no-loop-guard")
        screen.until(">>> ")
        screen.type("/show\n")
        assert screen.until(">>> ").count("a" * 60) > 0, "what was shown stays in the conversation"


def test_the_guard_can_be_switched_off(talker: Path, settings: dict[str, str], tmp_path: Path) -> None:
    with chat(talker, settings, tmp_path, *STUCK, "--no-loop-guard", program=QUICK) as screen:
        screen.type("Hello\n")
        assert "circles" not in screen.until("ended at a full context")


def test_programs_get_the_whole_answer(program: Program, talker: Path) -> None:
    piped = program("chat", "-m", str(talker), *STUCK, stdin=b"Hello\n")
    once = program("chat", "Hello", "-m", str(talker), *STUCK)
    run = program("run", "Hello", "-m", str(talker), *STUCK)
    for done in (piped, once, run):
        assert done.code == 0 and "ended at a full context" in "".join(done.said)
        assert done.text.count("a") > 210


@pytest.mark.parametrize("period", [1, 2, 7, 99, 100])
def test_a_span_that_fills_the_window_twice_is_a_loop(period: int) -> None:
    draw = random.Random(period)
    span = [draw.randrange(1000) for _ in range(period)]
    guard = LoopGuard()
    before = [guard.add(5000 + i) for i in range(50)]
    found = [guard.add(span[i % period]) for i in range(WINDOW)]
    assert before == [None] * 50
    assert found == [None] * (WINDOW - 1) + [period], "stopped with the 200th token, not before"


@pytest.mark.parametrize("period", [101, 150, 199, 200])
def test_a_longer_span_is_none(period: int) -> None:
    guard = LoopGuard()
    assert {guard.add(i % period) for i in range(WINDOW)} == {None}


def test_an_exception_in_the_window_is_no_loop() -> None:
    for place in (0, 1, 100, 198):
        guard = LoopGuard()
        ids = [i % 3 for i in range(WINDOW)]
        ids[place] = 77
        assert [guard.add(id_) for id_ in ids][-1] is None
        later = [guard.add((WINDOW + i) % 3) for i in range(place + 1)]
        assert later[-1] == 3, "once the exception has left the window"


def test_the_option_means_nothing_for_one_question(program: Program, talker: Path) -> None:
    done = program("chat", "Hello", "--no-loop-guard", "-m", str(talker))
    assert done.code == 2 and "conversations at a terminal" in done.said[-1]
