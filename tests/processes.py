"""Child processes of the tests: all start here (tests/contracts/test_processes.py), and none is left running.

A child leads a session of its own. When it is done with, whatever happened, its process group is killed with
all that it started in other sessions. Those are found by Linux's /proc; elsewhere the group alone is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

HANG_SECONDS = 1200.0  # a guard against waiting for ever, never a statement about speed
DYING_SECONDS = 30.0  # a process that was killed, or whose parent has ended, may need a moment
SET_CHILD_SUBREAPER = 36  # of prctl(2)
MARK = "POPHOOD_TESTS_CHILD"  # in the environment of a child and so of what it starts, in whatever session
_numbers = count()
_open: dict[int, str] = {}  # process id -> mark, of each `started` that is not left yet


@dataclass(frozen=True, slots=True)
class Running:
    """A process that runs: its id, its command line, and the mark of the `started` that it comes from."""

    pid: int
    command: str
    mark: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})"


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: `descendants` still finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int | None = None) -> list[Running]:
    """The processes below `pid` (default: this one) that run, zombies not among them."""
    running = []
    for child in _children(os.getpid() if pid is None else pid):
        with suppress(OSError):  # it may end while it is being read
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                settings = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                marks = [one.decode() for one in settings if one.startswith(MARK.encode() + b"=")]
                words = Path(f"/proc/{child}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                running.append(
                    Running(child, b" ".join(words).decode(errors="replace")[:200], "".join(marks))
                )
        running += descendants(child)
    return running


def wait_until_asleep(pid: int) -> None:
    """Wait until a process's main thread has slept for a moment, as one that waits for a line does (Linux).

    A signal that comes just before such a wait is noticed only when the wait ends.
    """
    stat = Path(f"/proc/{pid}/task/{pid}/stat")
    end, before = time.monotonic() + HANG_SECONDS, ""
    while time.monotonic() < end:
        fields = stat.read_text().rpartition(")")[2].split() if stat.exists() else []
        state = " ".join([*fields[:1], *fields[11:13]])  # and its processor time, in user and system mode
        if state == before and not state.startswith("R"):
            return
        before = state
        time.sleep(0.1)


def kill_leftovers() -> list[Running]:
    """Give what runs below this process a moment to end, then kill it; return what had to be killed."""
    end = time.monotonic() + DYING_SECONDS
    pause = 0.001
    while (left := _left()) and time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for child in _children(os.getpid()):  # orphans that were adopted: nobody else waits for them
        if child not in _open:
            with suppress(ChildProcessError):
                os.waitpid(child, 0 if child in {one.pid for one in left} else os.WNOHANG)
    return left


def _left() -> list[Running]:
    """The descendants of this process, without those of a `started` that a wider fixture still has open."""
    alive = [one for one in descendants() if one.mark not in _open.values() and one.pid not in _open]
    below = {one.pid for leader in _open for one in descendants(leader)}
    return [one for one in alive if one.pid not in below]


@contextmanager
def started(command: Any, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process whose streams are text, with the options of `subprocess.Popen`; killed on leaving."""
    with _started(command, **{"text": True} | options) as process:
        yield process


@contextmanager
def started_bytes(command: Any, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose streams are bytes, with the options of `subprocess.Popen`; killed on leaving."""
    with _started(command, **options) as process:
        yield process


if TYPE_CHECKING:
    from subprocess import run as run  # the same arguments and results
else:

    def run(command, *, input=None, capture_output=False, timeout=HANG_SECONDS, check=False, **options):  # noqa: A002
        """Do what `subprocess.run` does, with a guard against hanging, and leave no descendant running."""
        if input is not None:
            options["stdin"] = subprocess.PIPE
        if capture_output:
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with _started(command, **options) as process:
            out, err = process.communicate(input, timeout)
        done = subprocess.CompletedProcess(command, process.returncode, out, err)
        if check:
            done.check_returncode()
        return done


@contextmanager
def _started(command: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    mark = f"{MARK}={os.getpid()}.{next(_numbers)}"
    environment = options.pop("env", None)
    environment = dict(os.environ if environment is None else environment)
    environment[MARK] = mark.partition("=")[2]
    process = subprocess.Popen(command, start_new_session=True, env=environment, **options)
    _open[process.pid] = mark
    try:
        yield process
    finally:
        del _open[process.pid]
        _end(process, mark)


def _end(process: subprocess.Popen[Any], mark: str) -> None:
    """Kill a process with its group, its descendants and all that bears its mark, and close its streams."""
    below = descendants(process.pid) + [one for one in descendants() if one.mark == mark]
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when all have ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    for one in below:
        with suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    process.wait()
    streams: list[IO[Any] | None] = [process.stdin, process.stdout, process.stderr]
    for stream in streams:
        if stream is not None:
            with suppress(OSError):  # what was never written cannot be now
                stream.close()


def _children(pid: int) -> list[int]:
    """The direct children of a process, those of all its threads."""
    children: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children
