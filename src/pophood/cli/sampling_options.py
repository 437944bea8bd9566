"""Options that say how text is generated, made from the settings' own ranges: the two cannot drift apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import click

from pophood.cli.options import F, option
from pophood.sampling.settings import RANGES, SamplingSettings, parse_order

SECTION = "Sampling"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of the generation; only what was given, the library's defaults stand elsewhere."""

    settings: dict[str, Any]  # by the names of SamplingSettings
    bias: tuple[str, ...] = ()  # TOKEN=NUMBER, not yet looked up
    breakers: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)  # max_tokens, seed, stop: as generate takes them
    model_defaults: bool = False
    parse_special: bool = False
    special: bool = False


def sampling_options(function: F) -> F:
    """Add every setting of SamplingSettings, the limits and the seed, as one `wishes`."""

    @functools.wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        return function(*args, wishes=_wishes(values), **values)

    decorated: Callable[..., Any] = command
    for decorate in reversed([*_limits(), *_settings()]):
        decorated = decorate(decorated)
    return decorated  # type: ignore[return-value]


def _limits() -> list[Callable[[Any], Any]]:
    add = functools.partial(option, section="Text")
    return [
        add("--max-tokens", "-n", type=click.IntRange(1), metavar="N", help="New tokens at most."),
        add(
            "--stop",
            multiple=True,
            metavar="TEXT",
            help="End before this text; may be given again. A line break is $'\\n' in a shell.",
        ),
        add("--special", is_flag=True, help="Show special tokens such as <|endoftext|>."),
        add("--parse-special", is_flag=True, help="Read special tokens typed in the text as what they name."),
        option(
            "--greedy", is_flag=True, section=SECTION, help="Always take the likeliest token (temperature 0)."
        ),
        option(
            "--seed",
            type=click.IntRange(0, 2**64 - 1),
            metavar="N",
            section=SECTION,
            help="Repeat a run: the same seed draws the same tokens. Drawn and printed if not given.",
        ),
        option(
            "--model-defaults",
            is_flag=True,
            section=SECTION,
            help="Start from the values that the model's file suggests (`pophood show` lists them).",
        ),
    ]


def _settings() -> list[Callable[[Any], Any]]:
    defaults = {f.name: f.default for f in fields(SamplingSettings)}
    made = []
    for name, allowed in RANGES.items():
        off = "" if allowed.off is None or allowed.off == defaults[name] else f"; {allowed.off:g} is off"
        words = allowed.meaning[0].upper() + allowed.meaning[1:]
        made.append(
            option(
                flag(name),
                type=int if allowed.whole else float,
                metavar="N" if allowed.whole else "X",
                section=SECTION,
                help=f"{words} (default {defaults[name]:g}{off}).",
            )
        )
    made += [
        option(
            "--dry-breaker",
            multiple=True,
            metavar="TEXT",
            section=SECTION,
            help="DRY counts no repeat across this text; may be given again.",
        ),
        option(
            "--logit-bias",
            multiple=True,
            metavar="TOKEN=X",
            section=SECTION,
            help="Add X to a token's logit (-inf forbids it). TOKEN is an id, or a text that is one token; "
            "may be given again.",
        ),
        option(
            "--order",
            metavar="STEPS",
            section=SECTION,
            help=f"The chain, as names with commas (default {','.join(SamplingSettings().order)}).",
        ),
    ]
    return made


def flag(name: str) -> str:
    """The option of a setting: `flag("top_k") == "--top-k"`."""
    return "--" + name.replace("_", "-")


def _wishes(values: dict[str, Any]) -> Wishes:
    """Take the generation's values out of a command's parameters."""
    settings = {name: values.pop(name) for name in RANGES}
    settings = {name: value for name, value in settings.items() if value is not None}
    if values.pop("greedy"):
        if settings.get("temperature", 0.0) != 0.0:
            raise click.UsageError(
                f"--greedy and --temperature {settings['temperature']:g} contradict each other: give one"
            )
        settings["temperature"] = 0.0
    order = values.pop("order")
    if order is not None:
        settings["order"] = parse_order(order)
    limits = {name: values.pop(name) for name in ("max_tokens", "seed", "stop")}
    return Wishes(
        settings=settings,
        bias=values.pop("logit_bias"),
        breakers=values.pop("dry_breaker"),
        limits={name: value for name, value in limits.items() if value not in (None, ())},
        **{name: values.pop(name) for name in ("model_defaults", "parse_special", "special")},
    )
