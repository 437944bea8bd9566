"""What one run of training is told: frozen data, checked once. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from pophood.errors import BadInput

Method = Literal["lora", "full", "last"]
DEVICES = ("cpu", "cuda", "mps")
LAST_BLOCKS = 4
MOST = 1e9  # of minutes, steps, epochs, and of factors
EVERYWHERE = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.down")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021): W + scale * B A, with `scale` = alpha / rank, or alpha / sqrt(rank)
    for rsLoRA (Kalajdzievski 2023). `targets` are endings of canonical matrix names."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = EVERYWHERE
    rslora: bool = False

    @property
    def scale(self) -> float:
        """What the product of the two small matrices is multiplied by."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One run: method, sizes, length, schedule. `steps`, `epochs` or `minutes` ends it (default: minutes)."""

    method: Method = "lora"
    lora: LoraSettings = field(default_factory=LoraSettings)
    last_blocks: int = LAST_BLOCKS  # of method "last"
    batch_size: int = 4  # rows of one forward pass
    length: int = 256  # positions of a row
    accumulation: int = 1  # forward passes of one step
    learning_rate: float | None = None  # None: 2e-4 for LoRA, 5e-5 otherwise
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    warmup: float = 0.05  # share of the steps
    final_rate: float = 0.1  # the cosine ends at this share of the learning rate
    clip: float = 1.0  # largest norm of the gradient
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    seed: int = 42
    dropout: float = 0.0  # in GPT-2's three places
    recompute: bool = False  # gradient checkpointing
    evaluations: int = 10  # over the whole run, about
    cache_limit: float | None = None  # of method "last": GiB on the disk for states; None: by what is free
    patience: int = 0  # evaluations without a better loss before stopping early; 0: never
    precision: Literal["auto", "f32", "bf16"] = "auto"
    type: Literal["auto", "f32", "f16", "bf16"] = "auto"  # of the written weights; auto: the base's
    device: str = "cpu"  # of DEVICES: where torch computes
    base: Literal["auto", "q8"] = "auto"  # of LoRA: its frozen matrices as they are, or in 8 bits

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
        self._refuse_foreign()
        if self.cache_limit is not None and not self.cache_limit >= 0:
            raise BadInput(f"cache_limit must be at least 0 GiB, got {self.cache_limit:g}")
        given = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise BadInput(f"give one of steps, epochs and minutes, got {' and '.join(given)}")
        for name in given:
            _in_range(name, getattr(self, name), above=True)

    def _refuse_foreign(self) -> None:
        """Raise BadInput for an option of another method, which would change nothing."""
        if self.base == "q8" and self.method != "lora":
            raise BadInput(
                f"an 8-bit base cannot learn itself: base q8 is for method lora, got {self.method}"
            )
        if self.type != "auto" and self.method == "lora":
            raise BadInput(
                f"an adapter is written in float32, got type {self.type}: leave it out, or choose method full"
                " or last"
            )
        usual = LoraSettings()
        given = [f.name for f in fields(usual) if getattr(self.lora, f.name) != getattr(usual, f.name)]
        if given and self.method != "lora":
            raise BadInput(f"{_listed(given)}: for method lora alone, got method {self.method}: leave it out")
        blocks = [] if self.last_blocks == LAST_BLOCKS else ["last_blocks"]
        given = blocks + ([] if self.cache_limit is None else ["cache_limit"])
        if given and self.method != "last":
            raise BadInput(f"{_listed(given)}: for method last alone, got method {self.method}: leave it out")

    @property
    def rate(self) -> float:
        """The learning rate, its default by method."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-4 if self.method == "lora" else 5e-5


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise BadInput(f"{name} must be at least {least}, got {value}")


def _in_range(name: str, value: float | None, *, above: bool = False) -> None:
    """Raise BadInput unless it is a number, at least 0 or `above` it; None is a default."""
    if value is not None and not (math.isfinite(value) and (value > 0 or (value == 0 and not above))):
        raise BadInput(f"{name} must be {'more than' if above else 'at least'} 0, got {value:g}")
    if value is not None and value > MOST:  # what follows computes with it, and float32 ends at 3e38
        raise BadInput(f"{name} must be at most {MOST:g}, got {value:g}")
