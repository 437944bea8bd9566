"""The user's answers, line by line: from a terminal with a prompt and line editing, or from a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from pophood.plaintext import LineReader


class Answers:
    """Reads the lines of `stream`; shows a prompt only at a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.interactive = stream.isatty()
        self._stream = stream
        self._lines = LineReader(stream.buffer)
        if self.interactive:
            with suppress(ImportError):  # Windows has its own line editing
                import readline  # noqa: F401

    def ask(self, prompt: str) -> str | None:
        """Return the next line without its end, or None at the end. Ctrl-C raises KeyboardInterrupt."""
        if self.interactive and self._stream is sys.stdin and sys.stdout.isatty():
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        return self._lines.line("replace")  # UTF-8 whatever the console's encoding
