"""Where a prompt comes from: the argument, a file, or stdin; and text that is piped beside it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pophood.cli.options.piped import piped_bytes
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.tables import count
from pophood.plaintext import read_bytes, without_mark

if TYPE_CHECKING:
    from pophood.text.tokenizer import Tokenizer

STDIN = "stdin"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The bytes of a prompt, not yet checked to be UTF-8, and where they came from."""

    data: bytes
    origin: str
    dropped_newline: bool = False

    def ids(
        self,
        tokenizer: Tokenizer,
        console: Console,
        *,
        replace_invalid: bool = False,
        parse_special: bool = False,
    ) -> list[int]:
        """The prompt's tokens. Bytes that are not UTF-8 raise BadInput, or are replaced, and that is said."""
        if self.dropped_newline:
            console.detail(f"the line break that ends {self.origin} is left out (--keep-newline keeps it)")
        ids, replaced = tokenizer.encode_bytes(
            self.data, replace_invalid=replace_invalid, parse_special=parse_special
        )
        if replaced:
            console.say(f"{self.origin}: {count(replaced, 'invalid sequence')} replaced by U+FFFD")
        return ids

    @property
    def text(self) -> str:
        """The prompt to show."""
        return self.data.decode("utf-8", "replace")


def read_prompt(argument: str | None, file: str | None, keep_newline: bool = False) -> Prompt:
    """Read the prompt from where the user put it; "-" is stdin.

    The one line break with which editors and `echo` end a text is dropped (after it, a model begins a new
    paragraph), unless `keep_newline`; a byte order mark is no text and dropped too. Raises UsageError
    without a prompt, or with two; BadInput for UTF-16 and other encodings that announce themselves.
    """
    if argument is not None and file is not None:
        raise click.UsageError("a prompt and --file were both given: give one")
    if argument is not None and argument != "-":
        return Prompt(without_mark(_bytes(argument), "the command line"), "the command line")
    if file is not None and file != "-":
        return _without_newline(read_bytes(Path(file)), file, keep_newline)
    if argument is None and file is None and sys.stdin.isatty():
        raise click.UsageError('there is no prompt: give it as "TEXT", with --file, or on stdin')
    return _without_newline(sys.stdin.buffer.read(), STDIN, keep_newline)


def with_piped(console: Console, prompt: Prompt, keep_newline: bool = False) -> Prompt:
    """The prompt after the text that was piped to the command, if any; a blank line stands between them.

    With `keep_newline` the two are joined as they are. A piped text without a character that can be seen is
    none. How much was piped is said.
    """
    if prompt.origin == STDIN:
        return prompt
    piped = _without_newline(piped_bytes(sys.stdin, console.say), STDIN, keep_newline)
    if not piped.data.strip():
        return prompt
    console.say(f"stdin: {count(len(piped.text), 'character')} before the prompt")
    between = b"" if keep_newline else b"\n\n"
    return replace(prompt, data=piped.data + between + prompt.data, origin=f"stdin and {prompt.origin}")


def piped_alone(console: Console) -> Prompt | None:
    """The text that was piped to a command whose prompt may be left out; None if there is none."""
    piped = _without_newline(piped_bytes(sys.stdin, console.say), STDIN, keep=False)
    return piped if piped.data.strip() else None


def _without_newline(data: bytes, origin: str, keep: bool) -> Prompt:
    data = without_mark(data, origin)
    if keep or not data.endswith(b"\n"):
        return Prompt(data, origin)
    return Prompt(data[: -2 if data.endswith(b"\r\n") else -1], origin, dropped_newline=True)


def _bytes(argument: str) -> bytes:
    """The bytes that were typed; Python carries those that are not UTF-8 as lone surrogates (PEP 383)."""
    try:
        return argument.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return argument.encode("utf-8", "surrogatepass")
