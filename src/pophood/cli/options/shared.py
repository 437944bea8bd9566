"""The command class that lists options under headings, and the options that several commands share."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from pophood.cli.terminal.console import NORMAL, QUIET, VERBOSE, Console

HEADINGS = (
    *("Text", "View", "Measurement", "Network", "Output", "Learning", "Data", "Model", "Sampling", "Other"),
)
TEXTS = frozenset({"text", "question"})  # arguments that are prose
LOADING = ("precision", "kv", "threads", "context", "offline", "adapters")  # of ModelChoice
SHOWN = 40  # characters of an argument in a message
METAVARS = {
    click.types.IntParamType: "N",
    click.IntRange: "N",
    click.types.FloatParamType: "X",
    click.Path: "FILE",
}
F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]


class SectionOption(click.Option):
    """An option with the heading under which `--help` lists it, and a short name for its value."""

    def __init__(self, *args: Any, section: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.section = section
        self.metavar = self.metavar or METAVARS.get(type(self.type))


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
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
    decorate = click.command(cls=SectionCommand, context_settings=settings, **attributes)
    return lambda function: decorate(verbosity(function))


def option(*names: str, section: str, **attributes: Any) -> Callable[[F], F]:
    """`click.option` under a heading."""
    return click.option(*names, cls=SectionOption, section=section, **attributes)


text_option = functools.partial(option, section="Text")
output_option = functools.partial(option, section="Output")
network_option = functools.partial(option, section="Network")
model_option = functools.partial(option, section="Model")
other_option = functools.partial(option, section="Other")


def with_options(function: Any, options: Sequence[Decorator]) -> Any:
    """Add options to a function, in the order of the help."""
    for add in reversed(options):
        function = add(function)
    return function


def verbosity(function: F) -> F:
    """Add -v and -q, and pass the function a Console of that verbosity."""

    @other_option("-q", "--quiet", is_flag=True, help="Print nothing but errors on stderr.")
    @other_option("-v", "--verbose", is_flag=True, help="Print more on stderr.")
    @functools.wraps(function)
    def command(*args: Any, verbose: bool, quiet: bool, **values: Any) -> Any:
        if verbose and quiet:
            raise click.UsageError("-v and -q contradict each other: give one")
        loudness = VERBOSE if verbose else QUIET if quiet else NORMAL
        return function(*args, console=Console(loudness), **values)

    return command  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model that the user chose, and how to load it."""

    name: str | None = None
    precision: str = "auto"
    threads: int | None = None
    context: int | None = None
    offline: bool | None = None  # None: as POPHOOD_OFFLINE says
    adapters: tuple[tuple[str, float], ...] = ()  # folders or files, each with its factor
    kv: str = "auto"

    def typed(self, precision: str = "auto") -> str:
        """Return the options that choose the same model and numbers, with a space before each.

        `precision` is the command's default. Threads change no number and are left out.

        >>> ModelChoice("gpt2", adapters=(("notes-lora", 0.5),)).typed()
        ' -m gpt2 --adapter notes-lora:0.5'
        """
        words = ["-m", self.name] if self.name else []
        for place, scale in self.adapters:
            plain = scale == 1 and with_scale(place)[1] == 1
            words += ["--adapter", place if plain else f"{place}:{scale:g}"]
        words += ["--precision", self.precision] if self.precision != precision else []
        words += ["--kv", self.kv] if self.kv != "auto" else []
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


def adapter_option(help: str) -> Callable[[F], F]:  # noqa: A002
    """Return the decorator that adds --adapter, repeatable, as `adapters`: places, each with its scale."""
    names = ("--adapter", "adapters")
    return model_option(*names, type=with_scale, multiple=True, metavar="DIR[:SCALE]", help=help)


json_option = output_option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)
file_option = text_option(
    "-f",
    "--file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="Read the text from a file in UTF-8 (- is stdin).",
)
use_adapter_option = adapter_option(
    "Use an adapter from `pophood tune` or PEFT, as in notes-lora or notes-lora:0.5; repeatable."
)
kv_option = model_option(
    "--kv",
    type=click.Choice(["auto", "f32", "f16", "q8"]),
    default="auto",
    help="Type of keys and values (auto: f16 where blocks are computed as stored, else f32).",
)
threads_option = model_option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads to compute with (default: the physical cores this process may use).",
)
offline_option = model_option(  # None if it is not typed: the environment decides
    "--offline", is_flag=True, default=None, help="Forbid every connection (POPHOOD_OFFLINE=1 does too)."
)


def model_options(
    function: F, precision: str | None = "auto", *, threads: bool = True, adapters: bool = True
) -> F:
    """Add -m and the options for loading, as one parameter `choice`.

    `precision` is the default of --precision; with None there is no such option, and the precision is f32.
    Without `threads` there is no --threads among them, and the machine's number is taken; without `adapters`
    no --adapter.
    """
    left_out = {name for name, there in (("threads", threads), ("adapters", adapters)) if not there}
    taken = [name for name in LOADING if name not in left_out]

    @functools.wraps(function)
    def command(*args: Any, model: str | None, **values: Any) -> Any:
        loading = {"precision": "f32"} | {name: values.pop(name) for name in taken if name in values}
        return function(*args, choice=ModelChoice(model, **loading), **values)

    options = [
        model_option("-m", "--model", metavar="MODEL", help="A name, a hub id, a folder, or a .gguf file."),
        *([] if precision is None else [_precision_option(precision)]),
        *([kv_option] if precision == "auto" else []),  # at f32, keys and values are f32
        *([threads_option] if threads else []),
        model_option(
            "--context",
            type=click.IntRange(1),
            help="Tokens the context window may hold (default: the model's own).",
        ),
        *([use_adapter_option] if adapters else []),
        offline_option,
    ]
    decorated: F = with_options(command, options)
    return decorated


def _precision_option(default: str) -> Callable[[F], F]:
    return model_option(
        "--precision",
        default=default,
        metavar="NAME",
        help="Precision in which the engine computes: auto (blocks as stored), f32, q8 or q4.",
    )


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
