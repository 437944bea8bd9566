"""Runs pip as a child process: with it, every index, mirror, proxy and certificate of the user applies here.

Knows nothing about models or kits: a command goes in, progress and pip's complaints come out.
"""

from __future__ import annotations

import errno
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pophood.hub.net import Outside

GLANCE = 0.2  # seconds between two looks at what a pip without progress lines has written
ReportBytes = Callable[[int], None]  # called with the bytes of the current wheel


@dataclass(frozen=True, slots=True)
class PipResult:
    """The exit code of a pip that has ended, and its lines that begin with ERROR or WARNING."""

    code: int
    complaints: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The most telling complaint: one about a broken connection, else pip's first error."""
        connection = [line for line in self.complaints if "connection" in line.lower()]
        errors = [line for line in self.complaints if line.startswith("ERROR:")]
        line = (connection or errors or list(self.complaints) or ["no reason given"])[0]
        return "".join(char for char in line.partition(": ")[2] or line if char.isprintable())[:240]


def run_pip(arguments: Sequence[str], scratch: Path, report: ReportBytes = lambda done: None) -> PipResult:
    """Run `pip ARGUMENTS` with its temporary files in `scratch`; OSError for a full disk.

    Ctrl-C, or any other exception, ends pip too. `report` is called with the bytes of a file that it fetches
    (of the largest file in `scratch`, where this pip is too old to print its progress).
    """
    command = [sys.executable, "-m", "pip", *arguments, "--no-input", "--disable-pip-version-check"]
    raw = pip_version() >= (24, 1)  # it prints lines `Progress DONE of SIZE`
    command += ["--progress-bar", "raw" if raw else "off"]
    command += ["--resume-retries", "5"] if pip_version() >= (25, 1) else []
    places = {name: str(scratch) for name in ("TMPDIR", "TEMP", "TMP")}  # on the disk whose space was checked
    complaints: list[str] = []
    Outside.count(None)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | places | {"PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
    ) as pip:
        try:
            _follow(pip.stdout, None if raw else scratch, report, complaints)
        except BaseException:
            pip.kill()
            raise
    if pip.returncode and any("No space left on device" in line for line in complaints):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return PipResult(pip.returncode, tuple(complaints))


def pip_version() -> tuple[int, ...]:
    """Return the version of this Python's pip, `(24, 1)`; `(0,)` if there is none."""
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return tuple(int(part) for part in version("pip").split(".")[:2] if part.isdigit())
    return (0,)


def _follow(output: IO[str] | None, folder: Path | None, report: ReportBytes, complaints: list[str]) -> None:
    """Read pip's lines until it ends; if it prints no progress, look at the file that grows in `folder`."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        with suppress(OSError, ValueError):  # closed, because pip was killed
            for line in output or ():
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=GLANCE)
        except queue.Empty:
            if folder is not None:
                report(_largest(folder))
            continue
        if line is None:
            return
        words = line.split()
        if words[:1] == ["Progress"] and len(words) == 4 and words[1].isdigit():
            report(int(words[1]))
        elif line.startswith(("ERROR:", "WARNING:")):
            complaints.append(" ".join(words))


def _largest(folder: Path) -> int:
    """Return the bytes of the largest file below a folder in which pip is at work."""
    sizes = [0]
    for path in folder.rglob("*"):
        with suppress(OSError):  # moved or deleted meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)
