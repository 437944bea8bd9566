"""The command class that lists options under headings, and the options that several commands share."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pophood.cli.terminal.console import NORMAL, QUIET, VERBOSE, Console

HEADINGS = ("Text", "View", "Output", "Learning", "Data", "Model", "Sampling", "Other")
TEXTS = frozenset({"text", "question"})  # arguments that are prose
SHOWN = 40  # characters of an argument in a message
F = TypeVar("F", bound=Callable[..., Any])


class SectionOption(click.Option):
    """An option with the heading under which `--help` lists it."""

    def __init__(self, *args: Any, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help lists its options under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line; an error has a hint if a dash or a lost quote may be the cause."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            advice = hint(error, self, ctx.command_path, typed)
            if advice is not None:
                message = error.format_message().removesuffix(".")
                raise click.UsageError(f"{message}; {advice}.", ctx=ctx) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                heading = parameter.section if isinstance(parameter, SectionOption) else HEADINGS[-1]
                sections[heading].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def verb(**attributes: Any) -> Callable[[F], click.Command]:
    """Make a function the command of its module. Its docstring, the help text, needs an "Example:"."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    decorate = click.command(cls=SectionCommand, context_settings=settings, **attributes)
    return lambda function: decorate(verbosity(function))


def option(*names: str, section: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=SectionOption, section=section, **attributes)


def verbosity(function: F) -> F:
    """Add -v and -q, and pass the function a Console of that verbosity."""

    @option("-q", "--quiet", is_flag=True, section="Other", help="Print nothing but errors on stderr.")
    @option("-v", "--verbose", is_flag=True, section="Other", help="Print more on stderr.")
    @functools.wraps(function)
    def command(*args: Any, verbose: bool, quiet: bool, **values: Any) -> Any:
        if verbose and quiet:
            raise click.UsageError("-v and -q contradict each other: give one")
        loudness = VERBOSE if verbose else QUIET if quiet else NORMAL
        return function(*args, console=Console(loudness), **values)

    return command  # type: ignore[return-value]


def json_option(function: F) -> F:
    """Add --json as the parameter `as_json`."""
    return option(
        "--json", "as_json", is_flag=True, section="Output", help="Print one JSON document instead of text."
    )(function)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that the user chose, and how to load it."""

    name: str | None
    precision: str
    threads: int | None
    context: int | None
    offline: bool | None  # None: as POPHOOD_OFFLINE says
    adapters: tuple[tuple[str, float], ...] = ()  # folders or files, each with its factor

    def typed(self, precision: str = "auto") -> str:
        """Return the options that choose the same model and numbers, with a space before each.

        `precision` is the command's default. Threads change no number and are left out.

        >>> ModelChoice("gpt2", "auto", None, None, None, (("notes-lora", 0.5),)).typed()
        ' -m gpt2 --adapter notes-lora:0.5'
        """
        words = ["-m", self.name] if self.name else []
        for place, scale in self.adapters:
            words += [
                "--adapter",
                place if scale == 1 and with_scale(place)[1] == 1 else f"{place}:{scale:g}",
            ]
        words += ["--precision", self.precision] if self.precision != precision else []
        words += ["--context", str(self.context)] if self.context is not None else []
        return "".join(f" {shlex.quote(word)}" for word in words)


def with_scale(text: str) -> tuple[str, float]:
    """Parse `DIR[:SCALE]`; the default scale is 1.

    >>> with_scale("notes-lora:0.5")
    ('notes-lora', 0.5)
    """
    place, colon, scale = text.rpartition(":")
    try:
        return (place, float(scale)) if colon and place else (text, 1.0)
    except ValueError:
        return text, 1.0


def offline_option(function: F) -> F:
    """Add --offline; if it is not typed, the environment decides."""
    return option(
        "--offline",
        is_flag=True,
        default=None,
        section="Model",
        help="Forbid every connection (POPHOOD_OFFLINE=1 does too).",
    )(function)


def adapter_option(function: F) -> F:
    """Add --adapter, repeatable, as `adapters`: the texts as typed, for `with_scale`."""
    return option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="DIR[:SCALE]",
        section="Model",
        help="Use an adapter from `pophood tune` or PEFT, as in notes-lora or notes-lora:0.5; repeatable.",
    )(function)


def precision_option(precision: str | None) -> Callable[[F], F]:
    """Add --precision with this default; None adds nothing."""
    if precision is None:
        return lambda function: function
    return option(
        "--precision",
        default=precision,
        show_default=True,
        metavar="NAME",
        section="Model",
        help="Precision in which the engine computes: auto or f32.",
    )


def model_options(function: F, precision: str | None = "auto") -> F:
    """Add -m and the options for loading, as one parameter `choice`.

    `precision` is the default of --precision; with None there is no such option, and the engine chooses.
    """

    @option(
        "-m", "--model", metavar="MODEL", section="Model", help="A name, a hub id, a folder, or a .gguf file."
    )
    @precision_option(precision)
    @option(
        "--threads",
        type=click.IntRange(1, 1024),
        metavar="N",
        section="Model",
        help="Threads to compute with (default: the physical cores this process may use).",
    )
    @option(
        "--context",
        type=click.IntRange(1),
        metavar="N",
        section="Model",
        help="Tokens the context window may hold (default: the model's own).",
    )
    @adapter_option
    @offline_option
    @functools.wraps(function)
    def command(
        *args: Any,
        model: str | None,
        threads: int | None,
        context: int | None,
        adapters: tuple[str, ...],
        offline: bool | None,
        **values: Any,
    ) -> Any:
        chosen = values.pop("precision") if precision else "auto"
        scaled = tuple(map(with_scale, adapters))
        choice = ModelChoice(model, chosen, threads, context, offline, scaled)
        return function(*args, choice=choice, **values)

    return command  # type: ignore[return-value]


def hint(error: click.UsageError, command: click.Command, path: str, args: Sequence[str]) -> str | None:
    """Return a hint for an argument that begins with a dash or lost its quotes; None for other errors.

    `path` is the command as it was called, and `args` are the arguments after it.
    """
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if not arguments:
        return None
    dashed = _dashed(error, args)
    if dashed is not None:
        return f"an argument that begins with a dash goes behind --, as in: {path} -- {_quoted(dashed)}"
    prose = next((one for one in arguments if one.name in TEXTS), None)
    if prose is not None and error.message.startswith("Got unexpected extra arguments"):
        return f"a text of several words needs quotes, as in: {path} {_quoted(_words(args))}"
    return None


def _dashed(error: click.UsageError, args: Sequence[str]) -> str | None:
    """Return the argument that click may have taken for an option, or None."""
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
    """Return the words before the first option."""
    end = next((at for at, arg in enumerate(args) if arg.startswith("-") and len(arg) > 1), len(args))
    return " ".join(args[:end]) or "..."


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= SHOWN else f'"{line[:SHOWN]}..."'
