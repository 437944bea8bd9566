"""Resuming a run: the machine that made a checkpoint, what differs here, and the settings of its run."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from pophood import system
from pophood.errors import BadFile, Unsupported, quoted
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.settings import LoraSettings, TrainSettings


def machine() -> dict[str, Any]:
    """Return the facts, besides the state, on which the bits of a step depend, such as torch's version."""
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processes": ProcessGroup.from_environment().size,
        "processor": system.processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "numpy": np.__version__,
    }


def environment_differences(facts: Mapping[str, Any], *, shard: bool = False) -> list[str]:
    """Return a line for each difference from the checkpoint's machine; with none, resuming is bit-exact.

    >>> environment_differences({"machine": {**machine(), "threads": 64}})[0][:30]
    'threads: 64 in the checkpoint,'
    """
    there, here = facts.get("machine"), {**machine(), "shard": shard}
    if not isinstance(there, dict):
        return ["the checkpoint does not record where it was made, so the last bits may differ here"]
    there = {"processes": 1, "shard": facts.get("shard", False), **there}
    return [
        f"{name}: {quoted(str(there.get(name))).strip(chr(39))} in the checkpoint, {value} here; the run"
        " continues, but its last bits may differ"
        for name, value in here.items()
        if there.get(name) != value
    ]


def settings_of(facts: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a checkpoint's run; settings that did not exist then get their defaults.

    Raises BadFile for damaged settings, Unsupported for a setting that this version does not know.
    """
    saved = facts.get("settings")
    if not isinstance(saved, dict) or not isinstance(saved.get("lora", {}), dict):
        raise BadFile("the checkpoint holds no settings: it is damaged")
    known = {f.name for f in fields(TrainSettings)} | {f"lora.{f.name}" for f in fields(LoraSettings)}
    values = {name: _list_to_tuple(value) for name, value in saved.items()}
    lora = {name: _list_to_tuple(value) for name, value in values.pop("lora", {}).items()}
    if unknown := sorted(({*saved} | {f"lora.{name}" for name in lora}) - known):
        raise Unsupported(
            f"the checkpoint has settings that this pophood does not know: {quoted(', '.join(unknown))}: it"
            " was made by another version; update pophood"
        )
    # Earlier versions accepted, saved and ignored options of other methods.
    if values.get("method", "lora") != "lora":
        lora = {}
    if values.get("method", "lora") != "last":
        values = {name: value for name, value in values.items() if name not in ("last_blocks", "cache_limit")}
    try:
        return TrainSettings(**values, lora=LoraSettings(**lora))
    except TypeError:
        raise BadFile("the checkpoint's settings have values of a wrong type: it is damaged") from None


def _list_to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
