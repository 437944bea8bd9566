"""The prompt of a command, from the argument, a file or stdin, and variables of the chat template."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.piped import piped_bytes
from pophood.cli.options.shared import text_option
from pophood.cli.terminal.console import Console
from pophood.cli.terminal.tables import count
from pophood.errors import BadInput
from pophood.plaintext import read_bytes, without_mark

if TYPE_CHECKING:
    from pophood.text.tokenizer import Tokenizer

STDIN = "stdin"
_PYTHON = {"True": "true", "False": "false", "None": "null"}  # Python's spelling -> JSON's


@dataclass(frozen=True, slots=True)
class Prompt:
    """The bytes of a prompt, which may not be UTF-8, and their origin."""

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
        """Return the prompt's tokens. Invalid UTF-8 raises BadInput, or is replaced with a message."""
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
        """The prompt as text to show."""
        return self.data.decode("utf-8", "replace")


def read_prompt(argument: str | None, file: str | None, keep_newline: bool = False) -> Prompt:
    """Read the prompt from the argument or the file, or from stdin if it is "-" or not given.

    A single final line break, which editors and `echo` add, is dropped unless `keep_newline`, since a model
    would begin a new paragraph after it; a byte order mark is dropped, too. Raises UsageError without a
    prompt, or with two; BadInput for UTF-16 and other encodings with a mark.
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
    """Return the text that was piped to the command, if any, then a blank line, then the prompt.

    With `keep_newline` there is no blank line. White space alone does not count as piped text. A message says
    how much was piped.
    """
    if prompt.origin == STDIN:
        return prompt
    piped = piped_alone(console, keep_newline)
    if piped is None:
        return prompt
    console.say(f"stdin: {count(len(piped.text), 'character')} before the prompt")
    between = b"" if keep_newline else b"\n\n"
    return replace(prompt, data=piped.data + between + prompt.data, origin=f"stdin and {prompt.origin}")


def piped_alone(console: Console, keep_newline: bool = False) -> Prompt | None:
    """Return the text that was piped to a command whose prompt is optional; None if there is none."""
    piped = _without_newline(piped_bytes(sys.stdin, console.say), STDIN, keep_newline)
    return piped if piped.data.strip() else None


def _without_newline(data: bytes, origin: str, keep: bool) -> Prompt:
    data = without_mark(data, origin)
    if keep or not data.endswith(b"\n"):
        return Prompt(data, origin)
    return Prompt(data[: -2 if data.endswith(b"\r\n") else -1], origin, dropped_newline=True)


def _bytes(argument: str) -> bytes:
    """Return the bytes that were typed; Python turns invalid UTF-8 into lone surrogates (PEP 383)."""
    try:
        return argument.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return argument.encode("utf-8", "surrogatepass")


template_arg_option = text_option(
    "--template-arg",
    "template_args",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable of the chat template, as in enable_thinking=false (JSON, or else text); repeatable.",
)


def template_variables(typed: Iterable[str]) -> dict[str, Any]:
    """Return the variables of `--template-arg`. Raises BadInput unless each is NAME=VALUE, with good JSON.

    >>> template_variables(["enable_thinking=false", "effort=high", "tools=[]"])
    {'enable_thinking': False, 'effort': 'high', 'tools': []}
    """
    variables: dict[str, Any] = {}
    for text in typed:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--template-arg {text[:60]!r}: wanted NAME=VALUE, as in enable_thinking=false")
        if name in variables:
            raise BadInput(f"--template-arg sets {name!r} twice: give it once")
        variables[name] = _value(name, value)
    return variables


def _value(name: str, text: str) -> Any:
    if text in _PYTHON:
        raise BadInput(f"--template-arg {name}={text}: this would be text; write {_PYTHON[text]}, as in JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "[", '"'):
            raise BadInput(
                f"--template-arg {name}: the value is not JSON ({error}); check its quotes"
            ) from error
        return text
