"""Generated text streamed to stdout; several samples are printed one below the other, as in the talk."""

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
    """Prints the tokens of one run and stores them.

    A single sample is printed as the prompt and its continuation. Several samples are labelled
    "Output  1: ..." and computed together: the first is streamed, each other one follows when those before
    it have ended.
    """

    def __init__(
        self, console: Console, prompt: str, samples: int, *, show_prompt: bool = True, silent: bool = False
    ) -> None:
        self.tokens: list[list[Token]] = [[] for _ in range(samples)]
        self._console = console
        self._prompt = prompt if show_prompt else ""
        self._silent = silent
        # On a terminal each of several samples stays on one line; a pipe gets the text unchanged.
        in_lines = samples > 1 and sys.stdout.isatty()
        self._mark = (RETURN if unicode_ok(sys.stdout) else r"\\n") if in_lines else None
        self._current = -1
        self._advance()

    @property
    def count(self) -> int:
        """The number of new tokens so far in all samples."""
        return sum(map(len, self.tokens))

    def add(self, token: Token) -> None:
        """Add the next token of any sample."""
        self.tokens[token.sample].append(token)
        if token.sample != self._current:
            return
        self._write(token.text)
        while self._current < len(self.tokens) and _ended(self.tokens[self._current]):
            self._advance()

    def close(self) -> None:
        """Show the samples that are still waiting, finished or not."""
        while self._current < len(self.tokens):
            self._advance()
        if not self._silent:
            self._console.end_line()

    def _advance(self) -> None:
        """Begin the next sample's line."""
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
    """Return the text of a sample's tokens."""
    return "".join(token.text for token in tokens)


def _ended(tokens: Sequence[Token]) -> bool:
    return bool(tokens) and tokens[-1].finish is not None
