"""Options that say how text is generated: a table, so that `--help` needs no numbers library.

A test holds it equal to the names, kinds and defaults of SamplingSettings.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from pophood.cli.options.shared import F, option

SECTION = "Sampling"
# Field of SamplingSettings -> (kind, default, what it does).
SETTINGS: dict[str, tuple[type, float, str]] = {
    "temperature": (
        float,
        0.8,
        "Divide the logits by X: below 1 bolder, above 1 more varied, 0 takes the likeliest",
    ),
    "top_k": (int, 40, "Keep the N likeliest tokens; 0 keeps all"),
    "top_p": (float, 1, "Keep the fewest likeliest tokens with this probability together; 1 keeps all"),
    "min_p": (float, 0, "Keep tokens at least X times as likely as the likeliest"),
    "typical_p": (
        float,
        1,
        "Keep the fewest tokens of ordinary surprise with this probability together; 1 keeps all",
    ),
    "repetition_penalty": (
        float,
        1,
        "Divide the positive logits of used tokens, multiply the negative ones; 1 is off",
    ),
    "presence_penalty": (float, 0, "Take X off the logit of every used token"),
    "frequency_penalty": (float, 0, "Take X off the logit for every use of a token"),
    "penalty_window": (int, 64, "Newest tokens that count as used; -1 is all"),
    "dry_multiplier": (float, 0, "Strength of DRY, against repeated sequences"),
    "dry_base": (float, 1.75, "Growth of that strength with the length of the repeat"),
    "dry_allowed_length": (int, 2, "Length of repeat that costs nothing yet"),
    "dry_window": (int, -1, "Newest tokens searched for repeats; -1 is all"),
    "xtc_probability": (float, 0, "How often XTC excludes the top choices"),
    "xtc_threshold": (float, 0.1, "Probability from which a token is a top choice"),
    "min_tokens": (int, 0, "New tokens before a stop may end the text"),
}
ORDER = "bias, penalties, dry, top_k, typical, top_p, min_p, xtc, temperature"
SEED_LIMIT = 2**64
# What switches a method on -> the options that do nothing while it is off.
METHODS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("dry_multiplier",): ("dry_base", "dry_allowed_length", "dry_window", "dry_breaker"),
    ("xtc_probability",): ("xtc_threshold",),
    ("repetition_penalty", "presence_penalty", "frequency_penalty"): ("penalty_window",),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked of the generation; only what was given, the library's defaults stand elsewhere."""

    settings: dict[str, Any]  # by the names of SamplingSettings
    bias: tuple[str, ...] = ()  # TOKEN=NUMBER, not yet looked up
    breakers: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)  # by the names of GenerateSettings
    model_defaults: bool = False

    def check(self) -> None:
        """Refuse a value out of range, or for a method that is off, before a model is loaded."""
        from pophood.generate import GenerateSettings
        from pophood.sampling import SamplingSettings

        GenerateSettings(sampling=SamplingSettings(**self.settings), **self.limits)
        self._check_methods()

    def _check_methods(self) -> None:
        """Raise UsageError for an option of DRY, XTC or the penalties where those are off."""
        if self.model_defaults:
            return  # the file may switch them on
        given = [*self.settings, *(["dry_breaker"] if self.breakers else [])]
        for switches, parts in METHODS.items():
            idle = [flag(name) for name in parts if name in given]
            on = any(self.settings.get(name, SETTINGS[name][1]) != SETTINGS[name][1] for name in switches)
            if idle and not on:
                raise click.UsageError(
                    f"{', '.join(idle)} changes nothing alone: add {_list([flag(name) for name in switches])}"
                )


def _list(names: Sequence[str]) -> str:
    """Names with "or" before the last."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


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
        add(
            "-n",
            "--max-tokens",
            type=click.IntRange(0),
            metavar="N",
            help="New tokens at most (default 100, in a chat 0); 0 goes on to a stop or a full context.",
        ),
        add(
            "--stop",
            multiple=True,
            metavar="TEXT",
            help="End before this text; may be given again. A line break is $'\\n' in a shell.",
        ),
        add("--special", is_flag=True, help="Show special tokens such as <|endoftext|>."),
        option(
            "--greedy", is_flag=True, section=SECTION, help="Always take the likeliest token (temperature 0)."
        ),
        option(
            "--seed",
            type=click.IntRange(0, SEED_LIMIT - 1),
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
    made = [
        option(
            flag(name),
            type=kind,
            metavar="N" if kind is int else "X",
            section=SECTION,
            help=f"{words} (default {default:g}).",
        )
        for name, (kind, default, words) in SETTINGS.items()
    ]
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
            help=f"The chain, as names with commas; a step left out is off (default {ORDER}).",
        ),
    ]
    return made


def flag(name: str) -> str:
    """The option of a setting: `flag("top_k") == "--top-k"`."""
    return "--" + name.replace("_", "-")


def _wishes(values: dict[str, Any]) -> Wishes:
    """Take the generation's values out of a command's parameters."""
    settings = {name: values.pop(name) for name in SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    if values.pop("greedy"):
        if settings.get("temperature", 0.0) != 0.0:
            raise click.UsageError(
                f"--greedy and --temperature {settings['temperature']:g} contradict each other: give one"
            )
        settings["temperature"] = 0.0
    order = values.pop("order")
    if order is not None:
        from pophood.sampling import parse_order

        settings["order"] = parse_order(order)
    limits = {name: values.pop(name) for name in ("max_tokens", "seed", "stop", "special")}
    limits = {name: value for name, value in limits.items() if value not in (None, ()) and value is not False}
    if limits.get("max_tokens") == 0:
        limits["max_tokens"] = None
    return Wishes(
        settings=settings,
        bias=values.pop("logit_bias"),
        breakers=values.pop("dry_breaker"),
        limits=limits,
        model_defaults=values.pop("model_defaults"),
    )
