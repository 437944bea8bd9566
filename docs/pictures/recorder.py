"""A shell at a pseudo-terminal that types commands: what it shows, and when. POSIX only."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import processes

PROMPT = "\x1b[32m❯\x1b[0m "
KEY_SECONDS = 0.045  # between two keys
UNFINISHED = re.compile(r"\x1b(?:\[[?\d;]*)?$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Output that a command showed at once; `second` counts from when the command's first key was pressed."""

    second: float
    text: str
    typed: bool  # shown while the command was being typed


def record(
    commands: Sequence[str],
    folder: Path,
    environment: dict[str, str],
    columns: int,
    rows: int,
    shortened: dict[str, str],
) -> list[list[Piece]]:
    """Type each command at a shell's prompt and note what the terminal shows, from key to next prompt.

    `shortened` are folders of this machine, and what is shown instead.
    """
    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = {
        **environment,
        "TERM": "xterm-256color",
        "PS1": PROMPT,
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
    }
    for name in ("COLUMNS", "LINES", "NO_COLOR", "ENV"):
        settings.pop(name, None)
    with processes.started_bytes(
        ["sh", "-i"],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env=settings,
        cwd=folder,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ):
        os.close(screen)
        try:
            shell = _Shell(keyboard, shortened)
            shell.read_to_prompt()
            return [shell.run(command) for command in commands]
        finally:
            os.close(keyboard)


class _Shell:
    def __init__(self, keyboard: int, shortened: dict[str, str]) -> None:
        self._keyboard = keyboard
        self._shortened = shortened
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._pending = ""
        self._start = time.monotonic()
        self._pieces: list[Piece] = []

    def run(self, command: str) -> list[Piece]:
        self._start, self._pieces = time.monotonic(), []
        for key in command:
            os.write(self._keyboard, key.encode())
            time.sleep(KEY_SECONDS)
            self._read(typed=True)
        os.write(self._keyboard, b"\n")
        self.read_to_prompt()
        return self._pieces

    def read_to_prompt(self) -> None:
        while not "".join(piece.text for piece in self._pieces[-8:] if not piece.typed).endswith(PROMPT):
            self._read(typed=False)

    def _read(self, *, typed: bool) -> None:
        if not select.select([self._keyboard], [], [], processes.HANG_SECONDS)[0]:
            raise TimeoutError(f"nothing came for {processes.HANG_SECONDS:.0f} s: the shell hangs")
        text = self._pending + self._decode(os.read(self._keyboard, 1 << 16))
        cut = UNFINISHED.search(text)
        self._pending = text[cut.start() :] if cut else ""
        text = text[: cut.start()] if cut else text
        for folder, name in self._shortened.items():
            text = text.replace(folder, name)
        if text:
            self._pieces.append(Piece(time.monotonic() - self._start, text, typed))
