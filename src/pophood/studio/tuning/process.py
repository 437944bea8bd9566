"""A `pophood tune` as a process of its own, which outlives the server: its start, its life, its signals.

The process holds a lock on a file of its run for as long as it lives, so that any later server knows it
again; the number of a process alone may be another program's by then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pophood.errors import PophoodError
from pophood.openai.errors import invalid
from pophood.serve.guard.keys import VARIABLE
from pophood.serve.process.spawn import PACKAGES
from pophood.system.files import try_lock

PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from pophood.cli import main; main()"
LOCK, SAID, RESULT, PID = "lock", "said.log", "result.json", "pid"


def command_words(verb: str, arguments: Sequence[str]) -> list[str]:
    """Return the command line of a `pophood VERB`; with -P nothing in the working folder is imported."""
    return [sys.executable, "-P", "-c", PROGRAM, str(PACKAGES), verb, *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a run: this process's, without the server's key."""
    return {name: value for name, value in os.environ.items() if name != VARIABLE} | {"PYTHONUNBUFFERED": "1"}


def begin(arguments: Sequence[str], folder: Path) -> None:
    """Start a run whose output goes to files of its folder. Raises PophoodError if it runs already."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(descriptor, folder / LOCK):
            raise PophoodError("this run is running already")
        with (folder / SAID).open("ab") as said, (folder / RESULT).open("wb") as result:
            process = subprocess.Popen(
                command_words("tune", arguments),
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=said,
                env=environment(),
                pass_fds=(descriptor,) if sys.platform != "win32" else (),
                start_new_session=True,  # Ctrl-C at the terminal is the server's
            )
        (folder / PID).write_text(json.dumps(process.pid), encoding="ascii")
        _CHILDREN.append(process)
    finally:
        os.close(descriptor)


_CHILDREN: list[subprocess.Popen[bytes]] = []  # of this process, to be reaped


def is_running(folder: Path) -> bool:
    """Return whether the process of a run lives."""
    for child in _CHILDREN[:]:
        if child.poll() is not None:
            _CHILDREN.remove(child)
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(descriptor, folder / LOCK)
    finally:
        os.close(descriptor)


def send(folder: Path, number: signal.Signals) -> bool:
    """Send a signal to the process of a run, and return whether there was one."""
    if not is_running(folder):
        return False
    with suppress(OSError, ValueError):
        os.kill(int(json.loads((folder / PID).read_text(encoding="ascii"))), number)
        return True
    return False


async def asked_once(verb: str, arguments: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the JSON that a `pophood VERB` prints, and its lines on stderr. Raises ApiError, 400."""
    process = await asyncio.create_subprocess_exec(
        *command_words(verb, arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    try:
        told, words = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    said = words.decode("utf-8", "replace").splitlines()
    if process.returncode:
        raise invalid(
            (said or [f"`pophood {verb}` failed"])[-1].removeprefix("pophood: "), code=f"{verb}_refused"
        )
    return json.loads(told), said
