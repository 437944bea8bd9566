"""Options that several commands share, and the command class that lists them under headings."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pophood.cli.terminal.console import NORMAL, QUIET, VERBOSE, Console

HEADINGS = ("Text", "View", "Output", "Learning", "Data", "Model", "Sampling", "Other")
F = TypeVar("F", bound=Callable[..., Any])


class Option(click.Option):
    """An option with the heading under which `--help` lists it."""

    def __init__(self, *args: Any, section: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section


class Command(click.Command):
    """A command whose help keeps its examples as typed and its options under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; an error says what to type where a dash or a lost quote may be the cause."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            from pophood.cli.options.hints import hint

            advice = hint(error, self, ctx.command_path, typed)
            if advice is not None:
                said = error.format_message().removesuffix(".")
                raise click.UsageError(f"{said}; {advice}.", ctx=ctx) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in HEADINGS}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                heading = parameter.section if isinstance(parameter, Option) else HEADINGS[-1]
                sections[heading].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def verb(**attributes: Any) -> Callable[[F], click.Command]:
    """Make a function the command of its module; a test wants an "Example:" in every docstring."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    decorate = click.command(cls=Command, context_settings=settings, **attributes)
    return lambda function: decorate(verbosity(function))


def option(*names: str, section: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=Option, section=section, **attributes)


def verbosity(function: F) -> F:
    """Add -v and -q, and hand the function the Console that keeps to them."""

    @option("-q", "--quiet", is_flag=True, section="Other", help="Say nothing on stderr but errors.")
    @option("-v", "--verbose", is_flag=True, section="Other", help="Say more on stderr.")
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
    """Which model the user wants, and how it is to be loaded."""

    name: str | None
    precision: str
    threads: int | None
    context: int | None
    offline: bool | None  # None: as POPHOOD_OFFLINE says
    adapters: tuple[tuple[str, float], ...] = ()  # folders or files, each with its factor

    def typed(self, precision: str = "auto") -> str:
        """The options that choose the same model and numbers, with a space before them; "" for none.

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
    """`DIR[:SCALE]` as it was typed; without a scale it is 1.

    >>> with_scale("notes-lora:0.5")
    ('notes-lora', 0.5)
    """
    place, colon, scale = text.rpartition(":")
    try:
        return (place, float(scale)) if colon and place else (text, 1.0)
    except ValueError:
        return text, 1.0


def offline_option(function: F) -> F:
    """Add --offline; without it the environment decides."""
    return option(
        "--offline",
        is_flag=True,
        default=None,
        section="Model",
        help="Forbid every connection (POPHOOD_OFFLINE=1 does too).",
    )(function)


def adapter_option(function: F) -> F:
    """Add --adapter, repeatable, as `adapters`: the texts as they were typed (`with_scale` reads them)."""
    return option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="DIR[:SCALE]",
        section="Model",
        help="Use an adapter from `pophood tune` or PEFT, as in notes-lora or notes-lora:0.5; repeatable.",
    )(function)


def precision_option(precision: str | None) -> Callable[[F], F]:
    """Add --precision, what the engine computes with; None: nothing is added."""
    if precision is None:
        return lambda function: function
    return option(
        "--precision",
        default=precision,
        show_default=True,
        metavar="NAME",
        section="Model",
        help="What the engine computes with: auto or f32.",
    )


def model_options(function: F, precision: str | None = "auto") -> F:
    """Add -m and what belongs to loading, as one `choice`.

    `precision` is what nobody's wish means; None: there is no such option, and the engine chooses.
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
        wanted = tuple(map(with_scale, adapters))
        of_engine = values.pop("precision") if precision else "auto"
        choice = ModelChoice(model, of_engine, threads, context, offline, wanted)
        return function(*args, choice=choice, **values)

    return command  # type: ignore[return-value]
