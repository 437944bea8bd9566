"""Advice for command lines that a shell or an option parser takes apart: dashes, and words without quotes."""

from __future__ import annotations

from collections.abc import Sequence

import click

SHOWN = 40  # characters of an argument in a message
TEXTS = frozenset({"text", "question"})  # arguments that are prose


def hint(error: click.UsageError, command: click.Command, path: str, args: Sequence[str]) -> str | None:
    """A hint for an argument that began with a dash or lost its quotes; None for other errors.

    `path` is the command as it was called, `args` are what followed it.
    """
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if not arguments:
        return None
    dashed = _dashed(error, args)
    if dashed is not None:
        return f"an argument that begins with a dash goes behind --, as in: {path} -- {_quoted(dashed)}"
    prose = next((one for one in arguments if one.name in TEXTS), None)
    if prose is not None and error.message.startswith("Got unexpected extra arguments"):
        return f"a text of several words stands in quotes, as in: {path} {_quoted(_words(args))}"
    return None


def _dashed(error: click.UsageError, args: Sequence[str]) -> str | None:
    """The argument that was taken for an option, if that may be what happened."""
    before = list(args[: args.index("--")] if "--" in args else args)
    dashed = [arg for arg in before if arg.startswith("-") and len(arg) > 1]
    prose = next((arg for arg in dashed if any(map(str.isspace, arg.partition("=")[0]))), None)
    if prose is not None:
        return prose  # no option has a space in its name
    if not isinstance(error, click.NoSuchOption) or error.option_name.startswith("--"):
        return None  # a mistyped option
    single = [arg for arg in dashed if not arg.startswith("--")]
    return next((arg for arg in single if error.option_name[1:] in arg), None)


def _words(args: Sequence[str]) -> str:
    """The words in front of the first option."""
    end = next((at for at, arg in enumerate(args) if arg.startswith("-") and len(arg) > 1), len(args))
    return " ".join(args[:end]) or "..."


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= SHOWN else f'"{line[:SHOWN]}..."'
