"""The options of `pophood tune`: a table, so that `--help` needs no numbers library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pophood.cli.options.shared import F, option
from pophood.cli.terminal.console import Console
from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.train.data import DataOptions
    from pophood.train.settings import TrainSettings

LEARNING, DATA = "Learning", "Data"
FORMATS = ("auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks")
METHODS = ("lora", "full", "last")
DEVICES = ("cpu", "cuda", "mps")
BASES = ("auto", "q8")
PRECISIONS = ("auto", "f32", "bf16")
TYPES = ("auto", "f32", "f16", "bf16")
CHOICES = ("method", "targets", "base", "precision", "type", "device")  # beside SETTINGS
# Name of the option -> (field of TrainSettings, or lora.FIELD; kind; what it does).
SETTINGS: dict[str, tuple[str, Any, str]] = {
    "minutes": (
        "minutes",
        float,
        "Minutes until the result is written; the clock decides the number of steps (default: 5).",
    ),
    "steps": ("steps", int, "Steps, instead of minutes."),
    "epochs": ("epochs", float, "Times through the data, instead of minutes."),
    "rank": ("lora.rank", int, "LoRA: rank of the adapters (default: 8)."),
    "alpha": ("lora.alpha", float, "LoRA: adapters are scaled by alpha / rank (default: 16)."),
    "lora-dropout": ("lora.dropout", float, "LoRA: dropout before the adapters (default: 0)."),
    "last-blocks": ("last_blocks", int, "Method last: number of blocks to train (default: 4)."),
    "cache-limit": (
        "cache_limit",
        float,
        "Method last: GiB on disk for the frozen blocks' output (default: 20, at most half of the free).",
    ),
    "batch-size": ("batch_size", int, "Rows per forward pass (default: 4)."),
    "length": ("length", int, "Positions per row (default: 256, or the model's if it has fewer)."),
    "accumulation": ("accumulation", int, "Forward passes per step (default: 1)."),
    "learning-rate": (
        "learning_rate",
        float,
        "Peak learning rate (default: 2e-4 for LoRA, else 5e-5; by size from scratch).",
    ),
    "weight-decay": ("weight_decay", float, "Weight decay of the matrices (default: 0.01)."),
    "dropout": ("dropout", float, "Dropout, as in GPT-2 (default: 0)."),
    "patience": (
        "patience",
        int,
        "Stop after N evaluations without a better loss; 0: never (default: 4).",
    ),
    "evaluations": ("evaluations", int, "Approximate number of evaluations in the run (default: 10)."),
    "seed": ("seed", int, "Seed of shuffling, split and initial weights (default: 42)."),
}
# Method -> settings that are for it alone.
OWNED = {
    "lora": ("lora.rank", "lora.alpha", "lora.dropout", "lora.targets", "lora.rslora", "base"),
    "last": ("last_blocks", "cache_limit", "no_cache"),
}
FLAGS = {"lora.dropout": "lora-dropout", "completions_only": "completions-only/--everything"}
DATA_FLAGS = {"validation_paths": "validation_data"}
UNSAID = ("auto", False, None, ())  # values of data options that nobody typed


@dataclass(frozen=True, slots=True)
class TuneWishes:
    """What was typed; only what was given."""

    settings: dict[str, Any] = field(default_factory=dict)  # fields of TrainSettings, and "lora.FIELD"
    data: dict[str, Any] = field(default_factory=dict)  # fields of DataOptions
    from_scratch: str | None = None  # a size
    vocabulary: int | None = None
    shard: bool = False

    @property
    def kind(self) -> str:
        """What the result is called after: the method, or "scratch"."""
        return "scratch" if self.from_scratch else str(self.settings.get("method", "lora"))

    def check_scratch(self, model: str | None, adapters: bool) -> None:
        """Raise UsageError for what a model from scratch cannot be told."""
        if self.from_scratch is None:
            return
        if model is not None or adapters:
            flag = "-m" if model is not None else "--adapter"
            raise click.UsageError(f"--from-scratch makes a model of its own: leave out {flag}")
        if self.settings.get("method", "full") != "full":
            raise click.UsageError("from scratch everything learns (--method full): leave out --method")

    @property
    def _typed(self) -> dict[str, Any]:
        """The settings by the options that were typed: --no-cache sets a limit, and is none."""
        hidden = {"cache_limit"} if "no_cache" in self.settings else set()
        return {name: value for name, value in self.settings.items() if name not in hidden}

    def check_method(self) -> None:
        """Raise UsageError for an option that the method, or a run without validation, makes no use of."""
        method = "full" if self.from_scratch else str(self.settings.get("method", "lora"))
        for owner, names in OWNED.items():
            flags = [flag(name) for name in names if name in self._typed]
            if flags and method != owner:
                this = "from scratch everything learns" if self.from_scratch else f"this is --method {method}"
                raise click.UsageError(f"{listed(flags)}: for --method {owner}, and {this}: leave it out")
        if self.vocabulary is not None and self.from_scratch is None:
            raise click.UsageError(
                "--vocabulary: for --from-scratch, and a model has its own vocabulary: leave it out"
            )
        if "cache_limit" in self.settings and self.settings.get("device", "cpu") != "cpu":
            raise click.UsageError("--cache-limit: nothing is kept for another --device: leave it out")
        validated = self.data.get("validation") != 0 or self.data.get("validation_paths")
        flags = [flag(name) for name in ("patience", "evaluations") if self.settings.get(name)]
        if flags and not validated:
            raise click.UsageError(f"{listed(flags)}: --validation 0 leaves nothing to evaluate: give one")
        if "validation" in self.data and self.data.get("validation_paths"):
            raise click.UsageError(
                "--validation takes a share of the data, --validation-data other files: give one"
            )

    def check_resume(self) -> None:
        """Raise UsageError for a setting that a resumed run has already."""
        known = {
            name
            for name, value in self._typed.items()
            if name not in ("minutes", "method") and value is not None
        }
        known |= {DATA_FLAGS.get(name, name) for name, value in self.data.items() if value not in UNSAID}
        if known:
            flags = ", ".join(flag(name) for name in sorted(known))
            raise click.UsageError(f"--resume goes on with the settings that the run has: leave out {flags}")

    def train_settings(self) -> TrainSettings:
        """As the library wants them. Raises BadInput for a value out of range."""
        from pophood.train.settings import LoraSettings, TrainSettings

        lora = {k.removeprefix("lora."): v for k, v in self.settings.items() if k.startswith("lora.")}
        rest = {k: v for k, v in self.settings.items() if not k.startswith("lora.") and k != "no_cache"}
        usual: dict[str, Any] = {"method": "full"} if self.from_scratch else {}
        return TrainSettings(lora=LoraSettings(**lora), **(usual | rest))

    def data_options(self) -> DataOptions:
        """How the files are read. Raises BadInput for a value out of range."""
        from pophood.train.data import DataOptions

        seed = {"seed": self.settings["seed"]} if "seed" in self.settings else {}
        return DataOptions(**self.data, **seed)


def flag(name: str) -> str:
    """How an option is typed: `--last-blocks` of `last_blocks`."""
    return "--" + FLAGS.get(name, name.removeprefix("lora.").replace("_", "-"))


def listed(flags: list[str]) -> str:
    """Options in a sentence.

    >>> listed(["--rank", "--alpha", "--rslora"])
    '--rank, --alpha and --rslora'
    """
    return " and ".join([", ".join(flags[:-1]), flags[-1]] if flags[1:] else flags)


def tune_options(function: F) -> F:
    """Add everything that says how to learn and how to read, as one `wishes`."""

    @functools.wraps(function)
    def command(*args: Any, **values: Any) -> Any:
        given = {key: values.pop(key.replace("-", "_")) for key in (*SETTINGS, *CHOICES)}
        flags = {key: values.pop(key) for key in ("rslora", "recompute", "no_cache")}
        settings = {
            (SETTINGS[key][0] if key in SETTINGS else key): value
            for key, value in given.items()
            if value is not None and key != "targets"
        }
        settings |= {"lora.rslora": True} if flags["rslora"] else {}
        settings |= {"recompute": True} if flags["recompute"] else {}
        settings |= _no_cache(settings) if flags["no_cache"] else {}
        if given["targets"]:
            settings["lora.targets"] = _targets(given["targets"])
        scratch = {key: values.pop(key) for key in ("from_scratch", "vocabulary", "shard")}
        return function(*args, wishes=TuneWishes(settings, _data(values), **scratch), **values)

    decorated: Callable[..., Any] = command
    for decorate in reversed([*_learning(), *_reading()]):
        decorated = decorate(decorated)
    return decorated  # type: ignore[return-value]


def _learning() -> list[Callable[[Any], Any]]:
    learn = functools.partial(option, section=LEARNING)
    found = [
        learn(
            "--method",
            type=click.Choice(METHODS),
            help="lora: an adapter (default); full: all weights; last: the last blocks.",
        ),
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
            metavar="N",
            help="From scratch: largest number of tokens in the vocabulary (default: by size).",
        ),
    ]
    for name, (_, kind, words) in SETTINGS.items():
        metavar = "N" if kind is int else "X"
        found.append(learn(f"--{name}", type=kind, metavar=metavar, help=words))
    found += [
        learn(
            "--targets", metavar="NAMES", help="LoRA: matrices to adapt, as in attn.q,attn.v (default: all)."
        ),
        learn("--rslora", is_flag=True, help="LoRA: scale by alpha / sqrt(rank)."),
        learn(
            "--base",
            type=click.Choice(BASES),
            help="LoRA: q8 stores the frozen matrices in 8 bits, which saves memory and costs quality.",
        ),
        learn(
            "--precision",
            type=click.Choice(PRECISIONS),
            help="Multiply in bf16 with f32 masters (default if the processor can), or in f32.",
        ),
        learn(
            "--type",
            type=click.Choice(TYPES),
            help="Methods full, last: type of the written weights (default: as in the model's files).",
        ),
        learn(
            "--device",
            type=click.Choice(DEVICES),
            help="Device on which torch computes (default: cpu; only that is tested).",
        ),
        learn(
            "--no-cache", is_flag=True, help="Method last: cache nothing, and run every block in every epoch."
        ),
        learn(
            "--recompute", is_flag=True, help="Recompute activations in the backward pass, to save memory."
        ),
        learn(
            "--shard", is_flag=True, help="Under torchrun: each process holds a part of every weight (FSDP2)."
        ),
    ]
    return found


def _list_sizes(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Show the sizes for `--from-scratch list`, which needs no data, and end."""
    if value == "list" and not context.resilient_parsing:
        from pophood.train.run.scratch import sizes_table

        Console().out(str(sizes_table()))
        context.exit()
    return value


def _reading() -> list[Callable[[Any], Any]]:
    read = functools.partial(option, section=DATA)
    return [
        read("--format", "layout", type=click.Choice(FORMATS), default="auto", help="What the records are."),
        read(
            "--columns",
            metavar="OURS=THEIRS,...",
            help='Names of fields, as in "prompt=question,completion=answer".',
        ),
        read(
            "--completions-only/--everything",
            default=None,
            help="Learn the answers alone (default for prompts and chats), or all text.",
        ),
        read(
            "--validation",
            type=float,
            metavar="X",
            help="Share of the tokens to validate with (default: 0.1).",
        ),
        read(
            "--validation-data",
            multiple=True,
            metavar="FILE",
            type=click.Path(exists=True, path_type=Path),
            help="Validate with these files instead.",
        ),
        read("--strict", is_flag=True, help="Stop at the first bad line."),
    ]


def _data(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"format": values.pop("layout"), "strict": values.pop("strict")}
    columns, validation = values.pop("columns"), values.pop("validation")
    if columns:
        found["columns"] = columns_of(columns)
    if validation is not None:
        found["validation"] = validation
    found["completions_only"] = values.pop("completions_only")
    found["validation_paths"] = values.pop("validation_data")
    return found


def columns_of(text: str) -> dict[str, str]:
    """Our fields -> the data's, as typed: "prompt=question,completion=answer"; BadInput for another form."""
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not (ours and equals and theirs) for ours, equals, theirs in pairs):
        raise BadInput(f"--columns {text!r}: wanted OURS=THEIRS, as in prompt=question,completion=answer")
    names = [ours.strip() for ours, _, _ in pairs]
    if len(set(names)) < len(names):
        raise BadInput(f"--columns {text!r}: wanted each of our fields once")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _no_cache(settings: dict[str, Any]) -> dict[str, float]:
    if "cache_limit" in settings:
        raise click.UsageError("--no-cache keeps nothing, --cache-limit says how much: give one")
    return {"cache_limit": 0.0, "no_cache": True}


def _targets(text: str) -> tuple[str, ...]:
    from pophood.train.settings import EVERYWHERE

    if text in ("all", "all-linear"):
        return EVERYWHERE
    return tuple(part.strip() for part in text.split(",") if part.strip())
