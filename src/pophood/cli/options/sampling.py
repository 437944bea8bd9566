"""Options for generating text: the limits, the seed, and those generated from SamplingSettings."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields
from typing import Any

import click

from pophood.cli.options.from_settings import joined, setting_options, typed_settings
from pophood.cli.options.shared import Decorator, F, option, text_option, with_options
from pophood.sampling_settings import SEED_LIMIT, STEPS, SamplingSettings, parse_order

SECTION = "Sampling"
# Options that switch a method on -> the options that have no effect while it is off.
METHODS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("dry_multiplier",): ("dry_base", "dry_allowed_length", "dry_window", "dry_breaker"),
    ("xtc_probability",): ("xtc_threshold",),
    ("repetition_penalty", "presence_penalty", "frequency_penalty"): ("penalty_window",),
}


@dataclass(frozen=True, slots=True)
class SamplingArgs:
    """The options that were typed; all others have the library's defaults."""

    settings: dict[str, Any]  # fields of SamplingSettings
    bias: tuple[str, ...] = ()  # TOKEN=NUMBER; the tokens are not yet looked up
    breakers: tuple[str, ...] = ()
    limits: dict[str, Any] = field(default_factory=dict)  # fields of GenerateSettings
    model_defaults: bool = False

    def check(self) -> None:
        """Raise BadInput or UsageError, before a model is loaded, for a wrong value or one without effect."""
        from pophood.generate import GenerateSettings

        GenerateSettings(sampling=SamplingSettings(**self.settings), **self.limits)
        if self.model_defaults:
            return  # the model's file may switch DRY, XTC or the penalties on
        typed = [*self.settings, *(["dry_breaker"] if self.breakers else [])]
        defaults = {one.name: one.default for one in fields(SamplingSettings)}
        for switches, parts in METHODS.items():
            idle = [flag(name) for name in parts if name in typed]
            on = any(self.settings.get(name, defaults[name]) != defaults[name] for name in switches)
            if idle and not on:
                either = joined([flag(name) for name in switches], "or")
                raise click.UsageError(f"{', '.join(idle)} changes nothing alone: add {either}")


def flag(name: str) -> str:
    """Return the option of a setting: `flag("top_k") == "--top-k"`."""
    return "--" + name.replace("_", "-")


def sampling_options(function: F) -> F:
    """Add the settings of SamplingSettings, the limits and the seed, as one parameter `sampling`."""

    @functools.wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        return function(*args, sampling=_sampling_args(values), **values)

    decorated: F = with_options(command, _options())
    return decorated


def _options() -> list[Decorator]:
    """Return the decorators of all options, in the order of the help."""
    sample = functools.partial(option, section=SECTION)
    return [
        text_option(
            "-n",
            "--max-tokens",
            type=click.IntRange(0),
            help="New tokens at most (default 100, in a chat 0); 0: until a stop or a full context.",
        ),
        text_option(
            "--stop",
            multiple=True,
            help="End before this text; repeatable. Write a line break as $'\\n'.",
        ),
        text_option("--special", is_flag=True, help="Show special tokens such as <|endoftext|>."),
        sample("--greedy", is_flag=True, help="Always take the likeliest token (temperature 0)."),
        sample(
            "--seed",
            type=click.IntRange(0, SEED_LIMIT - 1),
            help="Repeat a run: the same seed draws the same tokens (default: random, and printed).",
        ),
        sample(
            "--model-defaults",
            is_flag=True,
            help="Start from the values that the model's file suggests (`pophood show` lists them).",
        ),
        *setting_options(SamplingSettings, SECTION, default="(default {})").values(),
        sample(
            "--dry-breaker",
            multiple=True,
            help="DRY counts no repeat across this text; repeatable.",
        ),
        sample(
            "--logit-bias",
            multiple=True,
            metavar="TOKEN=X",
            help="Add X to the logit of TOKEN, an id or the text of one token (-inf forbids it); repeatable.",
        ),
        sample(
            "--order",
            metavar="STEPS",
            help=f"The chain, as names with commas; a step left out is off (default {', '.join(STEPS)}).",
        ),
    ]


def _sampling_args(values: dict[str, Any]) -> SamplingArgs:
    """Remove these options from a command's parameters, and return their values."""
    settings = typed_settings(SamplingSettings, values)
    if values.pop("greedy"):
        if settings.get("temperature", 0.0) != 0.0:
            raise click.UsageError(
                f"--greedy and --temperature {settings['temperature']:g} contradict each other: give one"
            )
        settings["temperature"] = 0.0
    order = values.pop("order")
    if order is not None:
        settings["order"] = parse_order(order)
    limits = {name: values.pop(name) for name in ("max_tokens", "seed", "stop", "special")}
    limits = {name: value for name, value in limits.items() if value not in (None, ()) and value is not False}
    if limits.get("max_tokens") == 0:
        limits["max_tokens"] = None
    return SamplingArgs(
        settings=settings,
        bias=values.pop("logit_bias"),
        breakers=values.pop("dry_breaker"),
        limits=limits,
        model_defaults=values.pop("model_defaults"),
    )
