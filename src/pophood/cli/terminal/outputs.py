"""Generated text on its way to stdout: as it comes, several samples one below the other as in the talk."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pophood.cli.terminal.console import Console
from pophood.system import unicode_ok

if TYPE_CHECKING:
    from pophood.generate import Token


RETURN = "⏎"
_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")


class Outputs:
    """Prints the tokens of one run, and keeps them.

    One sample is the prompt and its continuation, unadorned. Several are "Output  1: ...": the first streams,
    each other one follows when those before it have ended, though all are computed together.
    """

    def __init__(
        self, console: Console, prompt: str, samples: int, *, show_prompt: bool = True, silent: bool = False
    ) -> None:
        self.tokens: list[list[Token]] = [[] for _ in range(samples)]
        self._console = console
        self._prompt = prompt if show_prompt else ""
        self._silent = silent
        # At a terminal each of several samples stays on its line; a pipe gets the very text.
        in_lines = samples > 1 and sys.stdout.isatty()
        self._mark = (RETURN if unicode_ok(sys.stdout) else r"\\n") if in_lines else None
        self._current = -1
        self._advance()

    @property
    def count(self) -> int:
        """New tokens so far, over all samples."""
        return sum(map(len, self.tokens))

    def add(self, token: Token) -> None:
        """Take the next token of any sample."""
        self.tokens[token.sample].append(token)
        if token.sample != self._current:
            return
        self._write(token.text)
        while self._current < len(self.tokens) and _ended(self.tokens[self._current]):
            self._advance()

    def close(self) -> None:
        """Show what was still waiting, whether or not it has ended."""
        while self._current < len(self.tokens):
            self._advance()
        if not self._silent:
            self._console.end_line()

    def _advance(self) -> None:
        """Open the next sample's line."""
        if self._current >= 0 and not self._silent:
            self._console.end_line()
        self._current += 1
        if self._current == len(self.tokens):
            return
        label = f"Output {self._current + 1:>2}: " if len(self.tokens) > 1 else ""
        self._write(label)
        self._write(self._prompt, bold=True)
        self._write(completion(self.tokens[self._current]))

    def _write(self, text: str, *, bold: bool = False) -> None:
        if self._silent:
            return
        if self._mark is not None:
            text = _LINE_BREAK.sub(self._mark, text)
        self._console.write(text, bold=bold)


def completion(tokens: Sequence[Token]) -> str:
    """The text of a sample's tokens."""
    return "".join(token.text for token in tokens)


def _ended(tokens: Sequence[Token]) -> bool:
    return bool(tokens) and tokens[-1].finish is not None
