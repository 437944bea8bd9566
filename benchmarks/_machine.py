"""The machine that a benchmark ran on: processor, instruction sets, cores, memory and kernel, for the record.

The read bandwidth is measured by the benchmarks themselves, since it changes with what else a machine does.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from pophood import _native, system

# The extensions that some kernel of pophood or of a peer uses; AMX by oneDNN and llama.cpp only.
USED = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")
NOTED = ("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm")


def description() -> dict[str, object]:
    """Facts about this machine, all of them as the operating system tells them."""
    processor = _processor()
    flags = processor.get("flags", processor.get("Features", "")).split()
    return {
        "processor": name(),
        "family": processor.get("cpu family", ""),
        "model": processor.get("model", ""),
        "extensions": [flag for flag in (*USED, *NOTED) if flag in flags],
        "isa": best_isa(),
        "cores": system.physical_cores(),
        "threads": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "last_level_cache": _last_level_cache(),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def name() -> str:
    """The processor's name, or what the platform says."""
    return _processor().get("model name") or platform.processor() or platform.machine()


def best_isa() -> str:
    """The instruction set that the engine takes on its own."""
    return _native.available_isa().split()[-1]


def slug() -> str:
    """The name of this machine's file of results: one name is sold with several instruction sets."""
    return re.sub(r"[^a-z0-9]+", "-", f"{name()} {best_isa()}".lower()).strip("-")


def _processor() -> dict[str, str]:
    """The first processor in /proc/cpuinfo, {} on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _memory_gb() -> float | None:
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    return round(int(text.split()[1]) / 2**20, 1)


def _last_level_cache() -> str:
    sizes = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    return sizes[-1].read_text(encoding="utf-8").strip() if sizes else ""
