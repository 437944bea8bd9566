"""Resuming: where a checkpoint was made, what is different here, and the settings its run had."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pophood.errors import BadFile, Unsupported
from pophood.formats.quoting import quoted
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.world import World


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

    >>> remarks({"machine": {**machine(), "threads": 64}})
    ['threads: 64 there, 2 here: the run goes on, but its last bits may differ']
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
    try:
        return TrainSettings(
            **values, lora=LoraSettings(**{name: _tuples(value) for name, value in lora.items()})
        )
    except TypeError:
        raise BadFile("the checkpoint's settings have values of a wrong type: it is damaged") from None


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
