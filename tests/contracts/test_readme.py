"""Every command and program of the README is run, on the small model, and prints what the README shows.

In a `console` block a line after `$ ` is a command and what follows is what it prints; a `text` block after a
`python` block is what that prints. A line `...` stands for any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    (kind, body) for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
]
# Run elsewhere: these would start this suite again, or install into this environment.
ELSEWHERE = {
    "make test": "is what is running",
    "pip install .": "tests/contracts/test_packaging.py, in a bare environment",
    "pophood studio smollm2": "runs until Ctrl-C: tests/studio/browser",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the README and what it prints, None where the README shows nothing."""

    line: str
    shown: str | None


def commands() -> list[Command]:
    """The commands of `sh` blocks (without output) and of `console` blocks (with it), in order."""
    found = []
    for kind, body in BLOCKS:
        if kind == "sh":
            lines = [re.sub(r"\s+#.*", "", line) for line in body.splitlines()]
            found += [Command(line, None) for line in lines if line.strip() and not line.startswith("#")]
        elif kind == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, _, shown = part.partition("\n")
                found.append(Command(line, shown if shown.strip() else None))
    return found


def programs() -> list[tuple[str, str | None]]:
    """The `python` blocks, each with the `text` block that follows it."""
    following = [*BLOCKS[1:], ("", "")]
    return [
        (body, after if next_kind == "text" else None)
        for (kind, body), (next_kind, after) in zip(BLOCKS, following, strict=True)
        if kind == "python"
    ]


def environment(smollm2: Path) -> dict[str, str]:
    """The test's home with the small model in it, and the scripts of this interpreter on the path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    models = str(smollm2.parent.parent)  # wherever the fixture found it
    own = {
        "PATH": path,
        "POPHOOD_MODELS": models,
        "POPHOOD_OFFLINE": "1",
        "COLUMNS": "100",
        "PYTHONUTF8": "1",
    }
    return os.environ | own


def agrees(printed: str, shown: str) -> bool:
    """True when the text is what the README shows, `...` lines and trailing spaces aside."""
    lines = [line.rstrip() for line in shown.strip("\n").splitlines()]
    pattern = "\n".join(
        "*" if line.strip() == "..." else re.sub(r"([*?\[])", r"[\1]", line) for line in lines
    )
    text = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return fnmatchcase(text, pattern)


def test_the_comparison_can_fail() -> None:
    assert agrees("a\nb\nc [1]\n", "a\n...\nc [1]")
    assert not agrees("a\nb\nd\n", "a\n...\nc")


def test_the_readme_has_the_two_commands_and_more() -> None:
    lines = [command.line for command in commands()]
    assert {"make run MODEL=smollm2", "make test", "pip install ."} <= set(lines)
    assert sum(line.startswith("pophood ") for line in lines) >= 3
    assert programs()


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.line)
def test_a_command_does_what_the_readme_shows(command: Command, smollm2: Path, tmp_path: Path) -> None:
    words = shlex.split(command.line)
    if command.line in ELSEWHERE:
        if words[0] == "make":
            processes.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    assert words[0] in {"make", "pophood"}, "the README runs nothing else"
    result = processes.run(
        words,
        cwd=ROOT if words[0] == "make" else tmp_path,
        env=environment(smollm2),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if command.shown is not None:
        assert agrees(result.stdout, command.shown), f"{result.stdout}\n--- shown:\n{command.shown}"


@pytest.mark.parametrize("program", programs(), ids=lambda program: program[0].splitlines()[0])
def test_a_program_does_what_the_readme_shows(program: tuple[str, str | None], smollm2: Path) -> None:
    code, shown = program
    result = processes.run(
        [sys.executable, "-c", code],
        env=environment(smollm2),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    if shown is not None:
        assert agrees(result.stdout, shown), f"{result.stdout}\n--- shown:\n{shown}"
