"""What a person answers, line by line: at a terminal with a prompt and line editing, or from a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from pophood.plaintext import LineReader


class Answers:
    """Lines of `stream`; a prompt is shown only where somebody sits."""

    def __init__(self, stream: TextIO) -> None:
        self.interactive = stream.isatty()
        self._stream = stream
        self._lines = LineReader(stream.buffer)
        if self.interactive:
            with suppress(ImportError):  # Windows has its own line editing
                import readline  # noqa: F401

    def ask(self, prompt: str) -> str | None:
        """The next line without its end; None when the input ends. Ctrl-C is a KeyboardInterrupt."""
        if self.interactive and self._stream is sys.stdin and sys.stdout.isatty():
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        return self._lines.line("replace")  # UTF-8, whatever the console speaks; no word has other bytes
