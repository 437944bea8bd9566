"""A pseudo-terminal for pophood: reads its screen and presses keys."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import processes

CTRL_C, CTRL_D = b"\x03", b"\x04"
STEERING = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")
PATIENCE = 30.0  # seconds after which a key press counts as lost

# The tiny models finish before a key could reach them, so every token is slowed down.
SLOW = """
import time
from pophood.generate import Run
quick = Run.__next__
def slow(self):
    time.sleep(0.02)
    return quick(self)
Run.__next__ = slow
from pophood.cli import main
main()
"""
QUICK = "from pophood.cli import main; main()"


class Screen:
    """A pseudo-terminal's screen and keyboard."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.text = ""
        self.process = process
        self.keyboard = descriptor
        self._seen = 0

    def type(self, keys: str | bytes) -> None:
        """Press keys; `\\n` is Enter."""
        os.write(self.keyboard, keys.encode() if isinstance(keys, str) else keys)

    def until(self, wanted: str, seconds: float = processes.HANG_SECONDS) -> str:
        """Read until a text appears, and return the text between the last one waited for and this one."""
        end = time.monotonic() + seconds
        while (found := self.text.find(wanted, self._seen)) < 0:
            self._read(end - time.monotonic())
        between = self.text[self._seen : found]
        self._seen = found + len(wanted)
        return between

    def interrupt_line(self) -> None:
        """Press Ctrl-C at a prompt once the program waits for keys, and again if it did not react.

        CPython's readline misses a signal between its echo and its wait for keys, since it only checks for
        one when the wait is interrupted. A user then presses again.
        """
        processes.wait_until_asleep(self.process.pid)
        self.type(CTRL_C)
        if not select.select([self.keyboard], [], [], PATIENCE)[0]:
            self.type(CTRL_C)

    def grow(self, characters: int = 8) -> None:
        """Wait for a few more characters, not counting control sequences."""
        wanted = len(STEERING.sub("", self.text)) + characters
        while len(STEERING.sub("", self.text)) < wanted:
            self._read(processes.HANG_SECONDS)

    def leave(self, keys: bytes) -> int:
        """Press keys that end the program once, then Enter, and return the exit code.

        A signal between readline's prompt and its wait for keys is noticed with the next key, hence Enter. A
        second signal could kill an interpreter that is shutting down.
        """
        self.type(keys + b"\n")
        return self.ended()

    def hang_up(self) -> None:
        """Close the terminal, as a closed window or a lost connection does."""
        os.close(self.keyboard)
        self.keyboard = -1

    def rest(self) -> str:
        """Read until the program has closed the terminal, and return everything that was shown."""
        with suppress(OSError):  # EIO: the other end is closed
            while True:
                self._read(processes.HANG_SECONDS)
        return self.text

    def ended(self, seconds: float = processes.HANG_SECONDS) -> int:
        """Wait for the program to end, and return its exit code."""
        return self.process.wait(seconds)

    def _read(self, seconds: float) -> None:
        assert select.select([self.keyboard], [], [], max(seconds, 0))[0], f"nothing more came: {self.text}"
        self.text += os.read(self.keyboard, 4096).decode("utf-8", "replace")


@contextmanager
def terminal(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    program: str = QUICK,
    columns: int = 80,
) -> Iterator[Screen]:
    """Run pophood with a pseudo-terminal as its controlling terminal, so that Ctrl-C interrupts it."""
    if sys.platform == "win32":
        pytest.skip("another operating system: no pseudo-terminals")
    import fcntl
    import pty
    import struct
    import termios

    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    plain = {"TERM": "xterm-256color", "COLUMNS": "", "LINES": "", "INPUTRC": "/dev/null"}
    with processes.started_bytes(
        [sys.executable, "-c", program, *arguments],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env={**os.environ, **plain, **environment},
        cwd=folder,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(screen)
        shown = Screen(keyboard, process)
        try:
            yield shown
        finally:
            if shown.keyboard >= 0:
                os.close(keyboard)
