"""The settings of a training run and of reading its data: frozen, checked when they are created. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from pophood.errors import BadInput
from pophood.settings import about, setting

Method = Literal["lora", "full", "last"]
DEVICES = ("cpu", "cuda", "mps")
LAST_BLOCKS = 4
BRIEF_MINUTES = 3.0  # a shorter run measures less, and makes no samples on the way
MOST = 1e9  # upper bound of every number; float32, in which they are used, ends at 3e38
EVERYWHERE = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.down")

Format = Literal["auto", "text", "lines", "prompt", "messages", "alpaca", "sharegpt", "tasks"]

LAYOUTS: dict[str, str] = {
    "text": "one document per text file, or per record with `text`",
    "lines": "a text file whose every line is a document",
    "prompt": "records with `prompt` and `completion`",
    "messages": "records with `messages`: a list of {role, content}, optionally with `weight`",
    "alpaca": "records with `instruction`, `output` and optionally `input`",
    "sharegpt": "records with `conversations`: a list of {from, value}",
    "tasks": "records with `instruction` and `instances`: a list of {input, output} (self-instruct)",
}
# The fields of records, which `columns` may rename.
FIELDS = {"text", "system", "prompt", "completion", "messages", "conversations"}
FIELDS |= {"instruction", "instances", "input", "output"}


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021): W + scale * B A.

    `scale` is alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023). `targets` are endings of
    canonical matrix names.
    """

    rank: int = setting(8, "LoRA: rank of the adapters")
    alpha: float = setting(16.0, "LoRA: adapters are scaled by alpha / rank")
    dropout: float = setting(0.0, "LoRA: dropout before the adapters", flag="lora-dropout")
    targets: tuple[str, ...] = setting(
        EVERYWHERE, "LoRA: matrices to adapt, as in attn.q,attn.v (default: all)", metavar="NAMES"
    )
    rslora: bool = setting(False, "LoRA: scale by alpha / sqrt(rank)")

    @property
    def scale(self) -> float:
        """The factor of the product B A."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The settings of a run. It ends after `steps`, `epochs` or `minutes`; after 5 minutes if none is set."""

    method: Method = setting("lora", "lora: an adapter (default); full: all weights; last: the last blocks")
    minutes: float | None = setting(
        None, "Minutes until the result is written; the clock decides the number of steps", usual="5"
    )
    steps: int | None = setting(None, "Steps, instead of minutes")
    epochs: float | None = setting(None, "Passes over the data, instead of minutes")
    lora: LoraSettings = field(default_factory=LoraSettings)
    last_blocks: int = setting(LAST_BLOCKS, "Method last: number of blocks to train", method="last")
    cache_limit: float | None = setting(
        None,
        "Method last: GiB on disk for the frozen blocks' output",
        usual="20, at most half of the free",
        method="last",
    )
    batch_size: int = setting(4, "Rows per forward pass")
    length: int = setting(256, "Positions per row", usual="256, or the model's if it has fewer")
    accumulation: int = setting(1, "Forward passes per step")
    learning_rate: float | None = setting(
        None, "Peak learning rate", usual="2e-4 for LoRA, else 5e-5; by size from scratch"
    )
    weight_decay: float = setting(0.01, "Weight decay of the matrices")
    dropout: float = setting(0.0, "Dropout, as in GPT-2")
    patience: int = setting(4, "Stop after N evaluations without a better loss; 0: never")
    evaluations: int = setting(10, "Approximate number of evaluations in the run")
    seed: int = setting(42, "Seed of shuffling, split and initial weights")
    base: Literal["auto", "q8"] = setting(
        "auto",
        "LoRA: q8 stores the frozen matrices in 8 bits, which saves memory and costs quality",
        method="lora",
    )
    precision: Literal["auto", "f32", "bf16"] = setting(
        "auto",
        "Multiply in bf16 with f32 masters (default if the processor can), or in f32",
    )
    type: Literal["auto", "f32", "f16", "bf16"] = setting(
        "auto", "Methods full, last: type of the written weights (default: as in the model's files)"
    )
    device: str = setting(
        "cpu", "Device on which torch computes (default: cpu; only that is tested)", choices=DEVICES
    )
    recompute: bool = setting(False, "Recompute activations in the backward pass, to save memory")
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    warmup: float = 0.05  # share of the steps
    final_rate: float = 0.1  # the cosine ends at this share of the learning rate
    clip: float = 1.0  # largest gradient norm

    def __post_init__(self) -> None:
        for name in ("batch_size", "length", "accumulation", "last_blocks", "evaluations"):
            _at_least(name, getattr(self, name), 1)
        _at_least("rank", self.lora.rank, 1)
        _at_least("patience", self.patience, 0)
        if not -(2**63) <= self.seed < 2**63:
            raise BadInput(f"seed must have 64 bits at most, got {self.seed}")
        _in_range("learning_rate", self.learning_rate, above=True)
        _in_range("alpha", self.lora.alpha, above=True)
        _in_range("clip", self.clip, above=True)
        _in_range("weight_decay", self.weight_decay)
        if not 0 <= self.dropout < 1 or not 0 <= self.lora.dropout < 1:
            raise BadInput(
                f"dropout must be at least 0 and below 1, got {max(self.dropout, self.lora.dropout):g}"
            )
        self._refuse_options_of_other_methods()
        if self.cache_limit is not None and not self.cache_limit >= 0:
            raise BadInput(f"cache_limit must be at least 0 GiB, got {self.cache_limit:g}")
        ends = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(ends) > 1:
            raise BadInput(f"give one of steps, epochs and minutes, got {' and '.join(ends)}")
        for name in ends:
            _in_range(name, getattr(self, name), above=True)

    def _refuse_options_of_other_methods(self) -> None:
        """Raise BadInput for an option that the method does not use."""
        if self.base == "q8" and self.method != "lora":
            raise BadInput(f"an 8-bit base cannot be trained: base q8 is for method lora, got {self.method}")
        if self.type != "auto" and self.method == "lora":
            raise BadInput(
                f"an adapter is written in float32, got type {self.type}: leave it out, or choose method full"
                " or last"
            )
        usual = LoraSettings()
        changed = [f.name for f in fields(usual) if getattr(self.lora, f.name) != getattr(usual, f.name)]
        self._refuse(changed, "lora")
        changed = [] if self.last_blocks == LAST_BLOCKS else ["last_blocks"]
        changed += [] if self.cache_limit is None else ["cache_limit"]
        self._refuse(changed, "last")

    def _refuse(self, names: list[str], method: str) -> None:
        if names and self.method != method:
            raise BadInput(
                f"{_listed(names)}: only for method {method}, got method {self.method}: leave it out"
            )

    @property
    def brief(self) -> bool:
        """Return whether the run is so short that less is measured."""
        return self.minutes is not None and self.minutes < BRIEF_MINUTES

    @property
    def rate(self) -> float:
        """The learning rate; if it is not set, the default of the method."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.method == "lora" else 5e-5


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Options for turning files into examples.

    Only `format`, `columns`, `completions_only`, `joined` and `special` change the token ids; for other
    values of the rest the files are not read again.
    """

    format: Format = setting("auto", "Layout of the records")
    columns: Mapping[str, str] = field(
        default_factory=dict,
        metadata=about(
            'Names of fields, as in "prompt=question,completion=answer"', metavar="OURS=THEIRS,..."
        ),
    )
    completions_only: bool | None = setting(
        None,
        "Compute the loss on the answers only (default for prompts and chats), or on all text",
        flag="completions-only/everything",
    )
    validation: float = setting(0.1, "Share of the tokens for validation")  # 1 or more: documents
    validation_paths: tuple[Path, ...] = setting(
        (), "Validate with these files instead", flag="validation-data", metavar="FILE"
    )
    strict: bool = setting(False, "Stop at the first bad line")
    joined: bool = False  # prompt and completion are joined as they are, without a template
    special: bool = False  # special tokens that plain text spells out become these tokens
    length: int = 1024  # positions per row: longer documents are cut or split
    long: Literal["auto", "cut", "split"] = "auto"  # auto: text is split, prompts and chats are cut
    seed: int | None = None  # of the split; None: the run's, or 42 if there is no run
    cache: Path | None = None  # the folder for token ids; None: `data` in pophood's home

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            raise BadInput(f"format is {self.format!r}; wanted one of auto, {', '.join(LAYOUTS)}")
        if self.length < 2:
            raise BadInput(f"length must be at least 2, got {self.length}")
        if not 0 <= self.validation < math.inf or (self.validation > 1 and self.validation % 1):
            raise BadInput(
                f"validation is {self.validation:g}; wanted a share below 1, or a whole number of documents"
            )
        unknown = [name for name in self.columns if name not in FIELDS]
        if unknown:
            raise BadInput(f"columns names {unknown[0]!r}; wanted some of {', '.join(sorted(FIELDS))}")


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise BadInput(f"{name} must be at least {least}, got {value}")


def _in_range(name: str, value: float | None, *, above: bool = False) -> None:
    """Raise BadInput unless a value is finite and at least 0, or more than 0 if `above`; None is fine."""
    if value is not None and not (math.isfinite(value) and (value > 0 or (value == 0 and not above))):
        raise BadInput(f"{name} must be {'more than' if above else 'at least'} 0, got {value:g}")
    if value is not None and value > MOST:
        raise BadInput(f"{name} must be at most {MOST:g}, got {value:g}")
