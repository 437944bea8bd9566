"""The machine that a benchmark ran on: processor, instruction sets, cores, memory and kernel, for the record.

The read bandwidth is measured by the benchmarks themselves, since it changes with what else a machine does.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from _amx import amx_refused, without_amx

from pophood import _native, system

# The extensions that some kernel of pophood or of a peer uses.
USED = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
NOTED = ("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm")


def description() -> dict[str, object]:
    """Facts about this machine, all of them as the operating system tells them."""
    processor = _processor()
    flags = processor.get("flags", processor.get("Features", "")).split()
    return {
        "processor": system.processor_name(),
        "family": processor.get("cpu family", ""),
        "model": processor.get("model", ""),
        "extensions": without_amx([flag for flag in (*USED, *NOTED) if flag in flags]),
        "amx_refused": amx_refused(),  # by --no-amx
        "isa": best_isa(),
        "cores": system.physical_cores(),
        "threads": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "last_level_cache": _last_level_cache(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def best_isa() -> str:
    """The instruction set that the engine takes on its own."""
    return _native.available_isa().split()[-1]


def slug() -> str:
    """The name of this machine's file of results: one name is sold with several instruction sets."""
    return re.sub(r"[^a-z0-9]+", "-", f"{system.processor_name()} {best_isa()}".lower()).strip("-")


def _processor() -> dict[str, str]:
    """Linux's facts about the processors, of the last one where they differ; {} on other systems."""
    lines = (line.partition(":") for line in system.cpu_info())
    return {key.strip(): value.strip() for key, _, value in lines}


def others_seconds() -> float:
    """Processor seconds that other programs took since the start, this process's children not among them.

    A virtual machine's host counts as one. 0 where the system does not say.
    """
    others = system.others_seconds()
    return 0.0 if others is None else others - _seconds_of_children()


def _seconds_of_children(process: str = "self") -> float:
    """Processor seconds of a process's children that are still running, and of theirs."""
    seconds = 0.0
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = task.read_text(encoding="ascii").split()
        except OSError:
            continue  # it has just ended
        for child in children:
            try:
                words = Path(f"/proc/{child}/stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has just ended, and counts among ours
            ticks = sum(map(int, words.rpartition(")")[2].split()[11:15]))
            seconds += ticks / os.sysconf("SC_CLK_TCK") + _seconds_of_children(child)
    return seconds


def _memory_gb() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return round(int(text.split()[1]) / 2**20, 1)


def _last_level_cache() -> str:
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return sizes[-1].read_text(encoding="utf-8").strip() if sizes else ""
