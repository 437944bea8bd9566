"""Child processes of the tests: all start here (tests/contracts/test_processes.py), none outlives its test.

A child leads a session. At its end, whatever happened, its process group is killed, and so is everything that
it started in other sessions, which Linux's /proc shows; on other systems only the group is killed.
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

HANG_SECONDS = 1200.0  # a guard against waiting for ever, not a claim about speed
DYING_SECONDS = 30.0  # for processes that were killed, or whose parent has ended
SET_CHILD_SUBREAPER = 36  # of prctl(2)
MARK = "POPHOOD_TESTS_CHILD"  # an environment variable, which every descendant inherits
_numbers = count()
_open: dict[int, str] = {}  # process id -> mark, for each open `started`


@dataclass(frozen=True, slots=True)
class Running:
    """A running process: its id, its command line, and the mark of its `started`."""

    pid: int
    command: str
    mark: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})"


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, so that `descendants` still finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int | None = None) -> list[Running]:
    """Return the running processes below `pid` (default: this one), without zombies."""
    running = []
    for child in _children(os.getpid() if pid is None else pid):
        with suppress(OSError):  # it may end meanwhile
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
    """Wait until the main thread of a process sleeps, as it does while it waits for input (Linux).

    Python handles a signal that arrives just before such a wait only after it.
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
    """Wait shortly for the processes below this one, kill the rest, and return those that were killed."""
    end = time.monotonic() + DYING_SECONDS
    pause = 0.001
    while (left := _left()) and time.monotonic() < end:
        time.sleep(pause)
        pause = min(2 * pause, 0.2)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for child in _children(os.getpid()):  # adopted orphans: nobody else waits for them
        if child not in _open:
            with suppress(ChildProcessError):
                os.waitpid(child, 0 if child in {one.pid for one in left} else os.WNOHANG)
    return left


def _left() -> list[Running]:
    """Return the descendants of this process, without those of a `started` that a wider fixture has open."""
    alive = [one for one in descendants() if one.mark not in _open.values() and one.pid not in _open]
    below = {one.pid for leader in _open for one in descendants(leader)}
    return [one for one in alive if one.pid not in below]


@contextmanager
def started(command: Any, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process with text streams and options of `subprocess.Popen`; kill it at the end."""
    with _started(command, **{"text": True} | options) as process:
        yield process


@contextmanager
def started_bytes(command: Any, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with byte streams and options of `subprocess.Popen`; kill it at the end."""
    with _started(command, **options) as process:
        yield process


if TYPE_CHECKING:
    from subprocess import run as run  # the same arguments and results
else:

    def run(command, *, input=None, capture_output=False, timeout=HANG_SECONDS, check=False, **options):  # noqa: A002
        """Do the same as `subprocess.run`, with a guard against hanging, and kill all descendants."""
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
    """Kill a process, its group, its descendants and everything with its mark, and close its streams."""
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
            with suppress(OSError):  # buffered input can no longer be written
                stream.close()


def _children(pid: int) -> list[int]:
    """Return the direct children of all threads of a process."""
    children: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                children += map(int, (thread / "children").read_text().split())
    return children
