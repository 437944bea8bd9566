"""The options of `pophood tune`, generated from the settings of the library."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import click

from pophood.cli.options.from_settings import flags_of, joined, setting_options, typed_settings
from pophood.cli.options.shared import Decorator, F, option, with_options
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput
from pophood.train.settings import EVERYWHERE, DataOptions, LoraSettings, TrainSettings

LEARNING = "Learning"
DATA_OPTIONS = setting_options(DataOptions, "Data", prefix="data_")


@dataclass(frozen=True, slots=True)
class TuneArgs:
    """The options that were typed; all others have the library's defaults."""

    settings: dict[str, Any] = field(default_factory=dict)  # fields of TrainSettings
    lora: dict[str, Any] = field(default_factory=dict)  # fields of LoraSettings
    data: dict[str, Any] = field(default_factory=dict)  # fields of DataOptions
    from_scratch: str | None = None  # a size
    vocabulary: int | None = None
    no_cache: bool = False
    shard: bool = False

    @property
    def kind(self) -> str:
        """The word for the default name of the result: the method, or "scratch"."""
        return "scratch" if self.from_scratch else str(self.settings.get("method", "lora"))

    def check_scratch(self, model: str | None, adapters: bool) -> None:
        """Raise UsageError for options that a model from scratch cannot have."""
        if self.from_scratch is None:
            return
        if model is not None or adapters:
            flag = "-m" if model is not None else "--adapter"
            raise click.UsageError(f"--from-scratch makes a model of its own: leave out {flag}")
        if self.settings.get("method", "full") != "full":
            raise click.UsageError("--from-scratch trains everything (--method full): leave out --method")

    def check_method(self) -> None:
        """Raise UsageError for an option that the method, or a run without validation, does not use."""
        method = "full" if self.from_scratch else str(self.settings.get("method", "lora"))
        owners = dict.fromkeys(flags_of(LoraSettings, self.lora), "lora")
        owners |= {f: one.method for f, one in flags_of(TrainSettings, self.settings).items() if one.method}
        owners |= {"--no-cache": "last"} if self.no_cache else {}
        for owner in ("lora", "last"):
            flags = [flag for flag, needed in owners.items() if needed == owner]
            if flags and method != owner:
                this = (
                    "--from-scratch trains everything" if self.from_scratch else f"this is --method {method}"
                )
                raise click.UsageError(f"{joined(flags)}: for --method {owner}, and {this}: leave it out")
        if self.vocabulary is not None and self.from_scratch is None:
            raise click.UsageError(
                "--vocabulary: for --from-scratch, and a model has its own vocabulary: leave it out"
            )
        caching = [flag for flag in ("--cache-limit", "--no-cache") if flag in owners]
        if caching and self.settings.get("device", "cpu") != "cpu":
            raise click.UsageError(
                f"{caching[0]}: nothing is cached with another --device than cpu: leave it out"
            )
        self._check_validation()

    def _check_validation(self) -> None:
        if "validation" in self.data and "validation_paths" in self.data:
            raise click.UsageError(
                "--validation takes a share of the data, --validation-data other files: give one"
            )
        idle = [f"--{name}" for name in ("patience", "evaluations") if self.settings.get(name)]
        if idle and self.data.get("validation") == 0:
            raise click.UsageError(f"{joined(idle)}: --validation 0 leaves nothing to evaluate: give one")

    def check_resume(self) -> None:
        """Raise UsageError for a setting that a resumed run already has."""
        parts = ((TrainSettings, self.settings), (LoraSettings, self.lora), (DataOptions, self.data))
        typed = {flag for settings, values in parts for flag in flags_of(settings, values)}
        typed |= {"--no-cache"} if self.no_cache else set()
        known = sorted(typed - {"--minutes", "--method"})
        if known:
            raise click.UsageError(
                f"--resume continues with the settings of the run: leave out {', '.join(known)}"
            )

    def train_settings(self) -> TrainSettings:
        """Return the settings of the run. Raises BadInput for a value out of range."""
        whole = {"method": "full"} if self.from_scratch else {}
        uncached = {"cache_limit": 0.0} if self.no_cache else {}
        return TrainSettings(lora=LoraSettings(**self.lora), **(whole | uncached | self.settings))

    def data_options(self) -> DataOptions:
        """Return the options for reading the files. Raises BadInput for a value out of range."""
        seed = {"seed": self.settings["seed"]} if "seed" in self.settings else {}
        return DataOptions(**self.data, **seed)


def tune_options(function: F) -> F:
    """Add the options for learning and for reading data, as one parameter `args` of type TuneArgs."""

    @functools.wraps(function)
    def command(*positional: Any, **values: Any) -> Any:
        settings = typed_settings(TrainSettings, values)
        lora = typed_settings(LoraSettings, values, prefix="lora_")
        if "targets" in lora:
            lora["targets"] = _targets(lora["targets"])
        own = {key: values.pop(key) for key in ("from_scratch", "vocabulary", "no_cache", "shard")}
        if own["no_cache"] and "cache_limit" in settings:
            raise click.UsageError(
                "--no-cache caches nothing, --cache-limit sets the size of the cache: give one"
            )
        return function(*positional, args=TuneArgs(settings, lora, typed_data(values), **own), **values)

    decorated: F = with_options(command, _options())
    return decorated


def typed_data(values: dict[str, Any]) -> dict[str, Any]:
    """Remove the options of DataOptions from a command's parameters, and return those that were typed."""
    data = typed_settings(DataOptions, values, prefix="data_")
    if "columns" in data:
        data["columns"] = columns_of(data["columns"])
    return data


def _options() -> list[Decorator]:
    """Return the decorators of all options, in the order of the help."""
    train = setting_options(TrainSettings, LEARNING)
    lora = setting_options(LoraSettings, LEARNING, prefix="lora_")
    learn = functools.partial(option, section=LEARNING)
    return [
        train.pop("method"),
        learn(
            "--from-scratch",
            metavar="SIZE",
            is_eager=True,
            callback=_list_sizes,
            help='Train a new model of this size, with a vocabulary from the data; "list" shows the sizes.',
        ),
        learn(
            "--vocabulary",
            type=int,
            help="From scratch: largest number of tokens in the vocabulary (default: by size).",
        ),
        *(train.pop(name) for name in ("minutes", "steps", "epochs")),
        *lora.values(),
        *train.values(),
        learn(
            "--no-cache", is_flag=True, help="Method last: cache nothing, and run every block in every epoch."
        ),
        learn(
            "--shard", is_flag=True, help="Under torchrun: each process holds a part of every weight (FSDP2)."
        ),
        *DATA_OPTIONS.values(),
    ]


def _list_sizes(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Print the sizes for `--from-scratch list`, which needs no data, and exit."""
    if value == "list" and not context.resilient_parsing:
        from pophood.train.run.scratch import sizes_table

        Console().out(str(sizes_table()))
        context.exit()
    return value


def columns_of(text: str) -> dict[str, str]:
    """Parse --columns: `prompt=question` maps pophood's field "prompt" to the data's field "question".

    Raises BadInput for another form.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not (ours and equals and theirs) for ours, equals, theirs in pairs):
        raise BadInput(f"--columns {text!r}: wanted OURS=THEIRS, as in prompt=question,completion=answer")
    names = [ours.strip() for ours, _, _ in pairs]
    if len(set(names)) < len(names):
        raise BadInput(f"--columns {text!r}: wanted each of our fields once")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _targets(text: str) -> tuple[str, ...]:
    if text in ("all", "all-linear"):
        return EVERYWHERE
    return tuple(part.strip() for part in text.split(",") if part.strip())
