"""Small runs for the tests of checkpoints and of the loop: a tiny model, a few hundred short documents."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pophood.train.checkpoint.save_load import TrainerState, save
from pophood.train.data import Data, PackedSampler
from pophood.train.distributed.process_group import LOCAL, ProcessGroup
from pophood.train.loop.trainer import Trainer
from pophood.train.model.lora import add_lora
from pophood.train.model.precision import load_f32
from pophood.train.model.transformer import DropoutRates, Model
from pophood.train.settings import LoraSettings, Method, TrainSettings
from tests.tiny import Values, tiny_config
from tests.train.data.samples import opened

LENGTH = 32
VOCABULARY = 1_536
SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "n_embd": 32, "n_head": 2, "head_dim": 16, "n_inner": 48}
KEY_HEADS = {"gpt2": 2, "llama": 1, "qwen3": 2}
TEXT = "the sun sets over hills and rivers where old stones wait for rain that never comes again"


@dataclass(frozen=True)
class Case:
    """The settings in which the runs of the tests differ."""

    method: Method = "full"
    family: str = "gpt2"
    dropout: float = 0.0
    accumulation: int = 1
    recompute: bool = False
    patience: int = 0
    steps: int = 12
    rate: float = 2e-3
    rank: int = 4

    def settings(self, **changes: Any) -> TrainSettings:
        """Return the settings for a trainer."""
        given: dict[str, Any] = {
            "method": self.method,
            "batch_size": 3,
            "length": LENGTH,
            "accumulation": self.accumulation,
            "learning_rate": self.rate,
            "steps": self.steps,
            "dropout": self.dropout,
            "recompute": self.recompute,
            "evaluations": 4,
            "patience": self.patience,
        }
        if self.method == "lora":
            given["lora"] = LoraSettings(rank=self.rank, dropout=self.dropout)
        elif self.method == "last":
            given["last_blocks"] = 1
        return TrainSettings(**{**given, **changes})


@functools.cache
def documents(folder: Path) -> Data:
    """Return short documents, several of which fit into a row; their ids are cached in `folder`."""
    path = folder / "text.jsonl"
    if not path.exists():
        words = TEXT.split()
        lines = [" ".join(words[(i * j) % len(words)] for j in range(1, 4 + i % 9)) for i in range(1, 41)]
        path.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines), encoding="utf-8")
    return opened(path, length=LENGTH)


def model_of(case: Case) -> Model:
    """Return the model, in which exactly the trained parameters require a gradient."""
    config = tiny_config(case.family, **SMALL, n_kv_head=KEY_HEADS[case.family])
    model = Model(config, DropoutRates(case.dropout, case.dropout, case.dropout))
    values = Values(config)
    load_f32(model, {name: values(name) for name, _ in model.named_parameters()})
    model.recompute = case.recompute
    torch.manual_seed(1)
    if case.method == "lora":
        add_lora(model, case.settings().lora)
    elif case.method == "last":
        model.requires_grad_(False)
        model.blocks[-1].requires_grad_(True)
    return model


def trainer_of(
    case: Case,
    data: Path,
    *,
    out: Path | None = None,
    should_stop: Callable[[], str | None] = lambda: None,
    group: ProcessGroup = LOCAL,
    shard: bool = False,
    **changes: Any,
) -> Trainer:
    """Return a trainer as a new process would create it; checkpoints go to `out`."""
    settings, read = case.settings(**changes), documents(data)

    def keep(state: TrainerState) -> str:
        assert out is not None
        return str(save(out, state))

    return Trainer(
        model_of(case),
        PackedSampler(read.train, settings.batch_size, LENGTH, settings.seed),
        PackedSampler(read.validation, settings.batch_size, LENGTH, settings.seed, shuffle=False),
        settings,
        save=None if out is None else keep,
        should_stop=should_stop,
        group=group,
        shard=shard,
    )
