"""`pophood talk`: scripted readers, pipes, going back, Ctrl-C, a terminal with colours, written files."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
from pathlib import Path

import pytest

from pophood.course import load_course
from tests import processes
from tests.cli.conftest import Program
from tests.needs import linux

PAGES = len(load_course().pages)


def shown(text: str) -> list[int]:
    """Return the numbers of the shown pages, in order."""
    return [int(number) for number in re.findall(rf"^Page (\d+) of {PAGES}: ", text, re.MULTILINE)]


def test_the_list_needs_no_model(program: Program) -> None:
    done = program("talk", "--list")
    assert done.code == 0 and not done.said
    lines = done.text.splitlines()
    assert len(lines) == PAGES
    assert lines[9].split("  ")[0] == "10" and lines[9].endswith("the talk, page 16-17")


def test_one_page_through_an_empty_pipe(program: Program, base: Path) -> None:
    done = program("talk", "--page", "10", "-m", str(base))
    assert done.code == 0 and shown(done.text) == [10]
    order = ["Predict", "Run", "Check", "Explain"]
    assert [line for line in done.text.splitlines() if line in order] == order
    assert "The answer: 5." in done.text and "Batch size: 1" in done.text and '" capital"' in done.text
    assert f'pophood look tokens "The capital of Spain is" -m {base}' in done.text
    assert "In this model" not in done.text and "\x1b" not in done.text


def test_a_scripted_reader_guesses_asks_and_walks(program: Program, base: Path) -> None:
    script = b"?\n?\nfive\n6\ns\nl\n99\nb\n\n\nq\n"
    done = program("talk", "--from", "10", "-m", str(base), stdin=script)
    assert done.code == 0 and shown(done.text) == [10, 9, 10]
    assert "Hint: Common words are one piece each" in done.text and "There is no other hint." in done.text
    assert "That is not a number: try again" in done.text
    assert "Close: 5 (you said 6)." in done.text
    assert "\nSolution\n--------\n\nFive in GPT-2's vocabulary" in done.text
    assert f"There are pages 1 to {PAGES}." in done.text
    assert "10  Text becomes tokens" in done.text
    assert done.said[-1].startswith("You were on page 10: `") and "talk -m" in done.said[-1]
    assert done.said[-1].endswith("--from 10` goes on there.")


def test_the_player_speaks_spanish(program: Program, base: Path) -> None:
    script = b"?\n?\nmuchos\n6\ns\na\nq\n"
    done = program("talk", "--language", "es", "--from", "10", "-m", str(base), stdin=script)
    assert done.code == 0 and "Pista: Las palabras corrientes" in done.text
    assert "Eso no es un número" in done.text and "Cerca: 5 (has dicho 6)." in done.text
    assert "Página 9 de" in done.text and "--language es" in done.said[-1]


def test_right_answers_are_counted_at_the_end(program: Program, base: Path) -> None:
    script = f"0\n{PAGES}\nx\n24\n6\n{PAGES}\n".encode()
    done = program("talk", "-m", str(base), stdin=script)
    assert "Right: 0." in done.text
    assert shown(done.text) == [1, PAGES, 24, PAGES]
    assert re.search(r"^That was the last page: 1 of \d guesses right, \d close\.$", done.text, re.MULTILINE)


def test_the_whole_course_from_start_to_end(program: Program, base: Path) -> None:
    done = program("talk", "-m", str(base))
    assert done.code == 0 and shown(done.text) == [*range(1, PAGES + 1)]
    assert done.text.count("The answer: ") == PAGES and len(done.said) == 1
    assert "X_new = X + dX" in done.text and "Model Loaded: " in done.text


def test_yes_asks_nothing_and_takes_nothing_from_stdin(program: Program, base: Path) -> None:
    done = program("talk", "--page", "1", "--yes", "-m", str(base), stdin=b"7\n")
    assert "The answer: 0." in done.text and "you said" not in done.text


def test_notes_are_for_the_teacher(program: Program, base: Path) -> None:
    with_notes = program("talk", "--page", "1", "--notes", "-m", str(base)).text
    assert "For the teacher: Start with a show of hands" in with_notes
    assert "show of hands" not in program("talk", "--page", "1", "-m", str(base)).text


def test_what_differs_is_said(program: Program, talker: Path) -> None:
    text = program("talk", "--page", "15", "-m", str(talker)).text
    assert "In this model: RMS norm stands in place of layer norm" in text
    assert "In this model: feed-forward has a third matrix, the gate." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--page", "99"), f"there is no page 99: there are 1 to {PAGES}"),
        (("--page", "1", "--from", "2"), "give one of them"),
        (("--language", "xx"), "the languages are: en"),
        (("--notebook", "no/such/x.ipynb"), "does not exist"),
    ],
)
def test_asking_wrongly_is_one_line(program: Program, arguments: tuple[str, ...], words: str) -> None:
    done = program("talk", *arguments)
    assert done.code == 2 and len(done.said) == 1 and words in done.said[0]


def test_a_cell_that_fails_is_said_and_the_rest_goes_on(program: Program, base: Path) -> None:
    done = program("talk", "--page", "14", "--context", "4", "-m", str(base))
    assert done.code == 1 and "Explain" in done.text
    said = [line for line in done.said if line.startswith("pophood: en/14-before-the-blocks.md:")]
    assert len(said) == 2 and all("the context window holds 4" in line for line in said)


def test_without_torch_a_page_says_how_to_get_it_and_the_course_goes_on(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without torch a page says how to install it, the course continues, and the exit code is 0."""
    monkeypatch.setitem(sys.modules, "torch", None)
    done = program("talk", "--from", "26", "-m", str(base))
    assert done.code == 0 and shown(done.text) == [*range(26, PAGES + 1)]
    python = re.escape(sys.executable)
    line = rf"^training needs torch, which is not installed; a build for CPUs: {python} -m pip install"
    needing = [page for page in load_course().pages if page.needs]
    assert len(re.findall(line, done.text, re.MULTILINE)) == len(needing) == 4
    assert done.text.count("No answer: the cells of this page were not run.") == 4
    assert done.text.count("The answer: ") == PAGES - 25 - 4
    assert "Traceback" not in done.text and len(done.said) == 1


def test_the_notebook_needs_no_model(program: Program, tmp_path: Path) -> None:
    done = program("talk", "--notebook", "talk.ipynb")
    assert done.code == 0 and done.said == ["written: talk.ipynb"]
    assert json.loads((tmp_path / "talk.ipynb").read_text(encoding="utf-8"))["nbformat"] == 4


def test_a_terminal_has_colours_questions_and_a_polite_end(base: Path, settings: dict[str, str]) -> None:
    linux()
    own, theirs = pty.openpty()
    with processes.started_bytes(
        [sys.executable, "-m", "pophood", "talk", "--from", "2", "-m", str(base)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | settings | {"TERM": "xterm-256color", "COLUMNS": "90", "LINES": "40"},
    ) as process:
        os.close(theirs)
        seen = _until(own, b"Enter to see")
        os.write(own, b"1.6 billion\n")
        seen += _until(own, b"q quit")
        processes.wait_until_asleep(process.pid)
        process.send_signal(signal.SIGINT)
        seen += _until(own, b"goes on there")
        assert process.wait(timeout=processes.HANG_SECONDS) == 130
    os.close(own)
    text = seen.decode("utf-8")
    assert "\x1b[" in text and "Your guess, a number" in text
    plain = " ".join(re.sub(r"\x1b\[[\d;]*m", "", text).split())
    assert "(you said 1,600,000,000)" in plain
    assert "You were on page 2" in text and "Traceback" not in text


def _until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        assert select.select([terminal], [], [], processes.HANG_SECONDS)[0], seen
        seen += os.read(terminal, 1 << 16)
    return seen


def test_answers_are_kept_and_marked(program: Program, base: Path, tmp_path: Path) -> None:
    me = tmp_path / "class" / "me.json"
    me.parent.mkdir()
    walk = ("talk", "-m", str(base), "--page", "10", "--answers", str(me))
    assert program(*walk, stdin=b"5\n").code == 0
    kept = json.loads(me.read_text("utf-8"))["pages"]["tokens"]
    assert kept["guess"] == "5" and kept["judged"] in ("right", "close", "wrong")
    assert "Your answer so far: 5 (Enter keeps it)." in program(*walk, stdin=b"\n").text
    assert kept["judged"] == json.loads(me.read_text("utf-8"))["pages"]["tokens"]["judged"]
    marked = program("talk", "-m", str(base), "--mark", str(me.parent))
    assert marked.code == 0
    assert marked.text.splitlines()[1].split(",")[0] == "me.json"
    me.write_text("{", encoding="utf-8")
    refused = program(*walk, "--yes")
    assert refused.code != 0 and len(refused.said) == 1 and "me.json" in refused.said[0]
    marked = program("talk", "-m", str(base), "--mark", str(me.parent))
    assert marked.code == 1 and any("me.json is not JSON" in line for line in marked.said)
