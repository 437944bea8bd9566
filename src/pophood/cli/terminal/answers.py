"""The user's answers and messages, line by line, from a terminal with a prompt and line editing or a pipe."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from pophood.cli.terminal.console import Console
from pophood.plaintext import LineReader

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'


class Answers:
    """Reads the lines of `stream`; shows a prompt only at a terminal.

    `errors` handles bytes that are not UTF-8, as in `bytes.decode`.
    """

    def __init__(self, stream: TextIO, errors: str = "replace") -> None:
        self.interactive = stream.isatty()
        self._stream = stream
        self._lines = LineReader(stream.buffer)
        self._errors = errors
        if self.interactive:
            with suppress(ImportError):  # Windows has its own line editing
                import readline  # noqa: F401

    @property
    def edits(self) -> bool:
        """True if lines are read with line editing."""
        return self.interactive and self._stream is sys.stdin and sys.stdout.isatty()

    def ask(self, prompt: str) -> str | None:
        """Return the next line without its end, or None at the end. Ctrl-C raises KeyboardInterrupt."""
        if self.edits:
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.interactive:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        return self._lines.line(self._errors)  # UTF-8 whatever the console's encoding


class Reader(Answers):
    """Reads messages from a terminal (with a prompt and line editing) or a pipe (one per line, no prompt)."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        super().__init__(stream, "surrogateescape")  # the tokenizer rejects surrogates
        self._console = console
        self._several_lines = False  # True inside a message of several lines
        if self.interactive:
            if readline := sys.modules.get("readline"):
                # Python turns this off, and then each line of a pasted text would be a message of its own.
                readline.parse_and_bind("set enable-bracketed-paste on")
            console.say("/help lists commands, Ctrl-D leaves")

    @property
    def half_typed(self) -> bool:
        """True if Ctrl-C has just cut off a message that was being typed."""
        if self._several_lines:
            return True
        readline = sys.modules.get("readline")
        return readline is not None and self.edits and bool(readline.get_line_buffer())

    def ask(self, prompt: str) -> str | None:
        """Return the next line as `Answers.ask` does, and end the line on screen at the end of the input."""
        line = super().ask(prompt)
        if line is None and self.edits:
            self._console.out()
        return line

    def message(self) -> str | None:
        """Return the next message with its lines joined; None at the end of the input."""
        self._several_lines = False
        line = self.ask(PROMPT)
        if line is None:
            return None
        if line.lstrip().startswith(QUOTES):
            return self._quoted(line.lstrip()[len(QUOTES) :])
        lines = [line]
        while lines[-1].endswith("\\"):
            self._several_lines = True
            lines[-1] = lines[-1][:-1]
            more = self.ask(MORE)
            if more is None:
                break
            lines.append(more)
        return "\n".join(lines)

    def _quoted(self, first: str) -> str:
        self._several_lines = True
        lines = []
        line: str | None = first
        while line is not None:
            head, end, _ = line.partition(QUOTES)
            lines.append(head)
            if end:
                break
            line = self.ask(MORE)
        return "\n".join(lines).strip("\n")
