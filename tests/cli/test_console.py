"""Console output: escapes for missing characters, no control characters, aligned columns."""

from __future__ import annotations

import io
import json
import sys
import unicodedata

import pytest

from pophood.cli.terminal import tables
from pophood.cli.terminal.console import QUIET, Console, one_line, plain, visible


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_no_control_character_of_a_model_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    Console().write("".join(map(chr, range(0x300))) + "\u202e\u2066\ud800\u2028" + "\U0001f600é日")
    shown = terminal.getvalue()
    assert {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")} <= {"\n", "\t"}
    assert "\u202e" not in shown and "\u2066" not in shown
    assert r"\x1b" in shown and r"\u202e" in shown and r"\ud800" in shown
    assert shown.endswith("\U0001f600é日")


def test_a_pipe_gets_the_very_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    Console().write("a\x1b[31mb\r\n")
    assert pipe.getvalue() == "a\x1b[31mb\r\n"


def test_a_message_is_one_visible_line() -> None:
    assert one_line("bad\nfile \x1b]52;c;x\x07  name\u202e") == r"bad file \x1b]52;c;x\x07 name\u202e"


def test_ordinary_text_is_left_alone() -> None:
    for text in ("", "plain", "naïve café", "日本語", "مرحبا", "👩\u200d👩", "a\tb\nc"):
        assert visible(text) == text


def test_quiet_says_nothing_and_results_still_come(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(QUIET)
    console.say("talk")
    console.detail("more talk")
    console.out("result")
    assert capsys.readouterr() == ("result\n", "")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", "cp437"])
def test_json_is_whole_in_every_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    Console().json({"text": "é日\x1b\U0001f600"})
    assert json.loads(raw.getvalue().decode(encoding)) == {"text": "é日\x1b\U0001f600"}


def test_json_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Console().json({"logit": float("nan")})


def test_columns_line_up_with_wide_and_combining_characters() -> None:
    text = tables.table(
        ["id", "text", "p"], [[1, "日本", 0.5], [22, "e\u0301", 0.25]], io.StringIO(), right=[0]
    )
    assert [tables.width(line[: line.rindex(" ") + 1]) for line in text.splitlines()] == [10, 10, 10]


@pytest.mark.parametrize(("encoding", "most"), [("utf-8", 10), ("cp1252", 10), ("ascii", 10)])
def test_bars_fit_their_console(encoding: str, most: int) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    for share in (0.0, 1e-9, 0.03, 0.5, 0.999, 1.0, 7.0, -1.0):
        drawn = tables.bar(share, most, stream)
        drawn.encode(encoding)
        assert len(drawn) <= most
        assert bool(drawn) == (share > 0)


def test_own_wording_falls_back_to_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert plain("a … · → × ’", stream) == "a ... - -> x '"


def test_ctrl_c_while_a_piece_is_shown_leaves_a_whole_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.StringIO):
        def flush(self) -> None:
            if self.getvalue() == "Hello":
                raise KeyboardInterrupt

    pipe, console = Interrupted(), Console()
    monkeypatch.setattr(sys, "stdout", pipe)
    with pytest.raises(KeyboardInterrupt):
        console.write("Hello")
    console.end_line()
    assert pipe.getvalue() == "Hello\n"
