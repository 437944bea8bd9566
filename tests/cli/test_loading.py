"""Loading a large model: progress from the first second, and Ctrl-C ends it at once with one line."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from pophood.cli.terminal import progress
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.progress import Waiting
from pophood.model.bundle import Weights
from tests.cli.conftest import Program
from tests.cli.terminal import CTRL_C, QUICK, terminal

# Reading a tensor of a tiny model takes no time, so it is slowed down: every one, or the first alone.
SLOW = """
import time
from pophood.model.bundle import Weights
read, taken = Weights.stored, []
def slow(self, name):
    taken.append(name)
    for _ in range({steps} if len(taken) <= {tensors} else 0):
        time.sleep(0.02)
    return read(self, name)
Weights.stored = slow
"""


@pytest.mark.parametrize(
    ("steps", "tensors"), [(5, 1000), (200, 1)], ids=["every tensor", "one large tensor"]
)
@pytest.mark.parametrize("command", [["run", "A text"], ["bench"]], ids=["run", "bench"])
def test_progress_is_shown_within_two_seconds_and_ctrl_c_ends_loading(
    command: list[str], steps: int, tensors: int, base: Path, settings: dict[str, str], tmp_path: Path
) -> None:
    program = SLOW.format(steps=steps, tensors=tensors) + QUICK
    with terminal([*command, "-m", str(base)], settings, tmp_path, program=program) as screen:
        screen.until("loading ", 20)
        screen.until("0:00:0", 2)  # the clock of the bar
        began = time.monotonic()
        screen.type(CTRL_C)
        assert screen.ended() == 130
        assert time.monotonic() - began < 3, "not after all tensors"
        said = "".join(screen.rest().splitlines())
        assert "stopped while loading" in said and "Traceback" not in said


def test_ctrl_c_in_a_pipe_is_one_line(program: Program, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Weights, name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Weights, "stored", interrupted)
    done = program("run", "-m", str(base), "A text")
    assert done.code == 130 and done.out == b""
    assert [line for line in done.said if line] == [f"stopped while loading {base}"]


def test_a_pipe_gets_a_line_every_five_seconds(
    program: Program, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that moves two seconds with every look at it."""
    seconds = iter(range(0, 10_000, 2))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    done = program("run", "-m", str(base), "A text", "--max-tokens", "1")
    lines = [line for line in done.said if line.startswith(f"loading {base}: ")]
    shares = [int(line.split()[-2]) for line in lines]
    assert done.code == 0 and len(lines) > 3
    assert shares == sorted(shares) and 0 < shares[0] < 100 and shares[-1] <= 100


def test_a_short_block_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Waiting(Console(), "loading") as waiting:
        waiting(1, 2)
    assert capsys.readouterr().err == ""
