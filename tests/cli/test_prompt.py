"""The sources of prompts, and the messages about text dropped from them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest

from pophood.cli.options.prompt import Prompt, read_prompt
from pophood.cli.terminal.answers import Answers, Reader
from pophood.cli.terminal.console import VERBOSE, Console


class Stdin(io.TextIOWrapper):
    """Standard input as a pipe or a terminal."""

    def __init__(self, data: bytes, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="ascii")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_the_argument_is_taken_as_typed() -> None:
    assert read_prompt("a\n", None) == Prompt(b"a\n", "the command line")
    assert (
        read_prompt("caf\u00e9 \udcff", None).data == b"caf\xc3\xa9 \xff"
    )  # \udcff is Python's surrogate for the byte ff
    assert read_prompt("\ud800", None).text == "\ufffd\ufffd\ufffd"


@pytest.mark.parametrize("source", ["file", "stdin", "dash"])
@pytest.mark.parametrize(
    ("data", "kept"),
    [(b"a\n", b"a"), (b"a\r\n", b"a"), (b"a\n\n", b"a\n"), (b"a", b"a"), (b"\n", b""), (b"", b"")],
)
def test_one_line_break_at_the_end_is_dropped(
    source: str, data: bytes, kept: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(data)
    for keep in (False, True):
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        argument, file = {"file": (None, str(path)), "stdin": (None, None), "dash": ("-", None)}[source]
        prompt = read_prompt(argument, file, keep)
        assert prompt.data == (data if keep else kept)
        assert prompt.dropped_newline == (prompt.data != data)


def test_no_prompt_and_two_prompts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"", terminal=True))
    with pytest.raises(click.UsageError, match="there is no prompt"):
        read_prompt(None, None)
    with pytest.raises(click.UsageError, match="both given"):
        read_prompt("a", "b.txt")


def test_what_is_dropped_or_replaced_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    class Spelling:
        def encode_bytes(
            self, data: bytes, *, replace_invalid: bool, parse_special: bool
        ) -> tuple[list[int], int]:
            assert replace_invalid and parse_special
            return [1], 3

    prompt = Prompt(b"x", "stdin", dropped_newline=True)
    prompt.ids(Spelling(), Console(VERBOSE), replace_invalid=True, parse_special=True)  # type: ignore[arg-type]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("the line break that ends stdin is left out")
    assert said[1] == "stdin: 3 invalid sequences replaced by U+FFFD"


def messages(data: str) -> list[str]:
    reader, found = Reader(Stdin(data.encode()), Console()), []
    while (message := reader.message()) is not None:
        found.append(message)
    return found


def test_a_pipe_is_a_message_per_line() -> None:
    assert messages("one\ntwo caf\u00e9\r\n\nlast") == ["one", "two caf\u00e9", "", "last"]


def test_messages_of_several_lines() -> None:
    quotes = '"""'
    assert messages(f"{quotes}one\ntwo{quotes}\nthree") == ["one\ntwo", "three"]
    assert messages(f"{quotes}\none\n\ntwo\n{quotes}\n") == ["one\n\ntwo"]
    assert messages(f"{quotes}never closed\nend") == ["never closed\nend"]
    assert messages("one \\\ntwo\\\nthree\nfour") == ["one \ntwo\nthree", "four"]
    assert messages("one\\") == ["one"]


def test_bytes_that_are_no_text_are_left_to_the_tokenizer() -> None:
    assert Reader(Stdin(b"caf\xe9\n"), Console()).message() == "caf\udce9"


def test_a_question_goes_to_stderr_where_stdout_is_redirected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"7\n", terminal=True))
    assert Answers(sys.stdin).ask("number? ") == "7"
    assert capsys.readouterr() == ("", "number? ")
