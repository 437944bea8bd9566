"""Commands of the page give its answers to the bit; a replay says so; a conversation is renamed."""

from __future__ import annotations

import contextlib
import io
import json
import shlex

import pytest

from tests import processes
from tests.cli.conftest import Program
from tests.cli.conftest import program as program
from tests.cli.conftest import settings as settings
from tests.studio.browser.tab import Tab
from tests.studio.browser.test_chat import asked, change, written
from tests.studio.server import StudioCommand

CODES = "[...document.querySelectorAll('.panel .same pre')].map(e => e.textContent)"
TEXT = "[...document.querySelectorAll('.turn.assistant .t:not(.mark)')].map(e => e.textContent).join('')"


def heated(tab: Tab) -> None:
    """Set samplers to what neither the program nor the server has by itself."""
    tab.press("Settings")
    sliders = "[...document.querySelectorAll('.panel .slider input[type=number]')]"
    for place, value in enumerate(("1.3", "23", "0.95", "0.01", "1.2")):
        change(tab, f"{sliders}[{place}]", value)
    tab.press("Settings")


def codes(tab: Tab) -> tuple[str, str]:
    """Return the command line and the Python that the open panel shows."""
    tab.until(f"{CODES}.length === 2")
    command, python = tab.value(CODES)
    return command, python


def printed(python: str) -> str:
    """Return what a program prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(python, {})
    return out.getvalue().removesuffix("\n")


def curled(command: str, key: str) -> str:
    """Return the text of the completion that a curl line asks for."""
    told = processes.run(
        shlex.split(command.replace("$POPHOOD_API_KEY", key)), capture_output=True, check=True
    ).stdout
    text: str = json.loads(told)["choices"][0]["text"]
    return text


def test_commands_and_a_replay_give_the_same_answer(
    tab: Tab, served: StudioCommand, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POPHOOD_MODEL", "POPHOOD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    asked(tab, "Hello", most=8)
    heated(tab)
    tab.press("Write another answer")
    tab.sees("2 of 2")
    written(tab)
    whole = tab.value(TEXT)
    tab.press("What the model reads")
    command, python = codes(tab)
    words = shlex.split(command)
    assert words[:2] == ["pophood", "chat"]
    answer = program(*words[1:])
    assert answer.text.removesuffix("\n") == whole
    assert printed(python) == whole

    tab.token(2)
    tab.until("document.querySelectorAll('.panel .head').length >= 2")
    command, python = codes(tab)
    rest = curled(command, served.facts["key"])
    assert rest == printed(python)
    assert len(rest) > 1
    assert whole.endswith(rest.lstrip("\ufffd"))  # the token may lie in the middle of a character

    tokens = "document.querySelectorAll('.turn.assistant .t').length"
    count = tab.value(tokens)
    tab.press("Continue")
    tab.until(f"{tokens} > {count}")
    written(tab)
    tab.press("Replay with the same seed, and compare every bit")
    tab.sees("tokens came again, bit for bit")


def test_a_conversation_is_renamed(tab: Tab) -> None:
    asked(tab, "A question", most=2)
    tab.value("document.querySelector('.head h1 button').click()")
    tab.until("document.activeElement.matches('.head h1 input')")
    tab.page.call("Input.insertText", text="A better name")
    tab.key("Enter", 13, "\r")
    tab.until("document.querySelector('.history .now')?.innerText.includes('A better name')")
