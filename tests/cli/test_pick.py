"""`pophood run --pick` through a pipe: every key, the path at the end, JSON, contradictory options."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

from tests import processes
from tests.cli.conftest import Program

SPAIN = "The capital of Spain is"


def test_a_walk_with_every_key(program: Program, base: Path) -> None:
    done = program("run", SPAIN, "--pick", "-m", str(base), stdin=b"\n3\nb\n2\nx\n99\nq\n")
    assert done.code == 0
    told = json.loads(
        program("run", SPAIN, "--pick", "--json", "-m", str(base), stdin=b"\n3\nb\n2\nq\n").text
    )
    assert [pick["number"] for pick in told["picks"]] == [1, 2] and told["finish"] == "you"
    assert told["text"] == SPAIN + told["completion"] == SPAIN + "".join(p["text"] for p in told["picks"])
    for pick in told["picks"]:
        assert len(pick["options"]) == 10 and pick["options"][pick["number"] - 1]["id"] == pick["id"]
    lines = done.text.splitlines()
    assert lines[-1] == told["text"], "the text that came of it stands last"
    assert lines.count(told["text"]) == 2, "and above its own options"
    assert any(line.startswith("back: ") for line in lines)
    assert any("'x' is not a choice" in line for line in lines)
    assert any("there is no number 99: wanted 1 to 10" in line for line in lines)
    assert done.said[-1] == "2 tokens picked; ended by you"


def test_enter_is_greedy_and_ends_are_said(program: Program, base: Path) -> None:
    greedy = program("run", SPAIN, "--greedy", "-n", "4", "-q", "-m", str(base)).text
    done = program("run", SPAIN, "--pick", "-n", "4", "-m", str(base), stdin=b"\n\n\n\nb\n\n\n")
    assert done.text.endswith(f"\n{greedy}")
    assert "the text ends here, at the token limit" in done.text
    assert done.said[-1] == "4 tokens picked; ended at the token limit"
    bare = program("run", SPAIN, "--pick", "--no-prompt", "-n", "4", "-m", str(base), stdin=b"\n" * 5)
    assert bare.text.splitlines()[-1] == greedy.removeprefix(SPAIN).rstrip("\n")


def test_the_end_of_the_input_ends_it(program: Program, base: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text(f"{SPAIN}\n", encoding="utf-8")
    done = program("run", "-f", "prompt.txt", "--pick", "-m", str(base), stdin=b"2")
    assert done.code == 0 and done.said[-1] == "1 token picked; ended by you"
    none = program("run", SPAIN, "--pick", "-m", str(base))
    assert none.code == 0 and none.text.splitlines()[-1] == SPAIN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((SPAIN, "--samples", "2"), "takes no --samples"),
        ((SPAIN, "--temperature", "0.5", "--seed", "1"), "takes no --seed, sampling options"),
        ((SPAIN, "--greedy"), "takes no sampling options"),
        ((SPAIN, "--logit-bias", "464=-5"), "takes no sampling options"),
        ((SPAIN, "--stop", "x"), "takes no --stop"),
        ((SPAIN, "--html", "page.html"), "takes no --html"),
        (("-",), "reads your choices from stdin"),
        ((), "reads your choices from stdin"),
        (("-f", "-"), "reads your choices from stdin"),
    ],
)
def test_contradictions_are_refused(
    program: Program, base: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = program("run", *arguments, "--pick", "-m", str(base), stdin=b"x")
    assert done.code == 2 and done.out == b"" and words in done.said[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="another operating system: Windows has no SIGINT to send")
def test_ctrl_c_keeps_the_path(base: Path, settings: dict[str, str], tmp_path: Path) -> None:
    import os

    command = [sys.executable, "-m", "pophood", "run", SPAIN, "--pick", "-m", str(base)]
    streams = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    with processes.started_bytes(command, **streams, env=os.environ | settings, cwd=tmp_path) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
        shown = b""
        while shown.count(b"probability") < 2:  # the options after the first pick
            shown += child.stdout.readline()
        processes.wait_until_asleep(child.pid)
        child.send_signal(signal.SIGINT)
        rest, said = child.communicate(timeout=processes.HANG_SECONDS)
    assert child.returncode == 130
    assert b"1 token picked; ended by Ctrl-C" in said and b"Traceback" not in said
    assert b"probability of this path" in rest
