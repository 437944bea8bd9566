"""Resuming: where a checkpoint was made, what is different here, and the settings its run had."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pophood.errors import BadFile, BadInput, Unsupported, quoted
from pophood.train.distributed.process_group import World
from pophood.train.settings import LoraSettings, TrainSettings

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer


def machine() -> dict[str, Any]:
    """What the bits of a step depend on beside the state: torch, threads, processes, and their like."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": World.here().size,
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
    }


def remarks(facts: Mapping[str, Any], *, shard: bool = False) -> list[str]:
    """What is different here from where the checkpoint was made, a line each; empty: resuming gives its bits.

    >>> remarks({"machine": {**machine(), "threads": 0}})[0].partition(",")[0]
    'threads: 0 there'
    """
    there, here = facts.get("machine"), {**machine(), "shard": shard}
    if not isinstance(there, dict):
        return ["the checkpoint does not say where it was made: its last bits may differ here"]
    there = {"processes": 1, "shard": facts.get("shard", False), **there}
    return [
        f"{name}: {quoted(str(there.get(name))).strip(chr(39))} there, {value} here: the run goes on, but its"
        " last bits may differ"
        for name, value in here.items()
        if there.get(name) != value
    ]


def settings_of(facts: Mapping[str, Any]) -> TrainSettings:
    """The settings that a checkpoint's run had. Raises BadFile where they are none.

    Settings that came later have their defaults; Unsupported for one that this pophood does not know.
    """
    given = facts.get("settings")
    if not isinstance(given, dict) or not isinstance(given.get("lora", {}), dict):
        raise BadFile("the checkpoint holds no settings: it is damaged")
    known = {f.name for f in fields(TrainSettings)} | {f"lora.{f.name}" for f in fields(LoraSettings)}
    lora = given.get("lora", {})
    if unknown := sorted(({*given} | {f"lora.{name}" for name in lora}) - known):
        raise Unsupported(
            f"the checkpoint has settings that this pophood does not know: {quoted(', '.join(unknown))}: it"
            " was made by another version; update pophood"
        )
    values = {name: _tuples(value) for name, value in given.items() if name != "lora"}
    if values.get("method", "lora") != "lora":  # earlier versions took, and kept, options of other methods
        lora = {}
    if values.get("method", "lora") != "last":
        values = {name: value for name, value in values.items() if name not in ("last_blocks", "cache_limit")}
    try:
        return TrainSettings(
            **values, lora=LoraSettings(**{name: _tuples(value) for name, value in lora.items()})
        )
    except TypeError:
        raise BadFile("the checkpoint's settings have values of a wrong type: it is damaged") from None


def check_state(
    trainer: Trainer, tensors: Mapping[str, torch.Tensor], wanted: set[str], facts: Mapping[str, Any]
) -> None:
    """Raise BadInput unless a saved state is of what the trainer trains, and has the `wanted` facts."""
    if {f"trained.{name}" for name in trainer.trained} != {n for n in tensors if n.startswith("trained.")}:
        raise BadInput(
            "the checkpoint holds other tensors than this run trains: use the model and method it had"
        )
    if absent := sorted(wanted - facts.keys()):
        raise BadInput(f"the checkpoint does not say {', '.join(absent)}: it is none of a run's")
    for name, parameter in trainer.trained.items():
        kinds = {"trained": parameter.dtype, "mean": torch.float32, "square": torch.float32}
        if name in trainer.model.master_remainder:
            kinds |= {"low": torch.int16, "mean": torch.bfloat16, "square": torch.int16}
        for kind, dtype in kinds.items():
            saved = tensors.get(f"{kind}.{name}", parameter.to(dtype))
            if saved.shape != parameter.shape or saved.dtype != dtype:
                raise BadInput(
                    f"the checkpoint's {kind}.{name} is {saved.dtype} {tuple(saved.shape)}, this run's"
                    f" {dtype} {tuple(parameter.shape)}: use the model, precision and settings it had"
                )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
