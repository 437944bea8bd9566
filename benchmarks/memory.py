"""Memory of a whole process that generates 128 tokens: MB at its peak, beside llama-cpp-python.

SmolLM2-135M in Q4_1. Resident memory counts the mapped file on both sides. Anonymous memory (resident, less
files) is read every millisecond; what exceeds the weights, the keys and values and the activations that
`plan_memory` predicts is Python, its modules, the vocabulary and buffers. Bars: at most 80 MB of that; 1.1
times llama-cpp-python's resident memory. Ceiling: Python alone, which is printed.
Run: python benchmarks/memory.py [--rounds 5] [--no-amx]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _amx import add_no_amx
from _timing import judged, paired_ratio, report, summary, versions
from start import PROMPT, ours, theirs

from pophood import hub
from pophood.model.bundle import open_bundle
from pophood.model.memory import plan_memory

TOKENS = 128
BLOCK = 32  # positions that the cache allocates at a time
MB = 1e6


@dataclass(frozen=True)
class Peak:
    """Largest values during the life of a process, in bytes."""

    resident: int
    anonymous: int


def peak_of(command: Sequence[str]) -> Peak:
    """Run a command to its end and read its memory every millisecond.

    The system keeps the largest resident memory itself (VmHWM). ru_maxrss would not do: it begins with that
    of the process that starts the command.
    """
    environment = os.environ | {"POPHOOD_OFFLINE": "1"}
    resident = anonymous = 0
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        while process.poll() is None:
            facts = status_of(process.pid)
            resident = max(resident, facts.get("VmHWM", 0))
            anonymous = max(anonymous, facts.get("RssAnon", 0))
            time.sleep(0.001)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Peak(resident, anonymous)


def status_of(pid: int) -> dict[str, int]:
    """The sizes in a process's status in bytes; {} once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(size) * 1024 for name, size, _ in words}


def planned(path: Path) -> dict[str, float]:
    """Bytes of the weights, of the activations, and of keys and values at the end."""
    bundle = open_bundle(path)
    plan = plan_memory(bundle.config, bundle.weights.stored_type, precision="auto")
    positions = len(bundle.tokenizer.encode(PROMPT)) + TOKENS
    blocks = -(-positions // BLOCK)
    cache = blocks * BLOCK * plan.cache_per_position
    return {"weights": plan.weights, "activations": plan.activations, "keys and values": cache}


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    add_no_amx(parser)
    options = parser.parse_args()
    path = hub.locate("smollm2").path
    parts = planned(path)
    commands = {
        "pophood": ours(path, TOKENS),
        "llama-cpp-python": theirs(path, TOKENS),
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    figures: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, command in commands.items():
            peak = peak_of(command)
            figures.setdefault(f"{name}, resident", []).append(peak.resident / MB)
            figures.setdefault(f"{name}, anonymous", []).append(peak.anonymous / MB)
    beyond = [value - sum(parts.values()) / MB for value in figures["pophood, anonymous"]]
    figures["pophood, anonymous beyond the plan"] = beyond
    ratio = paired_ratio(figures, "pophood, resident", "llama-cpp-python, resident")
    report(
        "memory of a process at 128 tokens, SmolLM2 Q4_1",
        "MB",
        figures,
        bars={
            "SmolLM2 Q4_1, anonymous memory beyond the plan, MB": judged(summary(beyond), 80, 60, most=True),
            "SmolLM2 Q4_1, resident memory against llama-cpp-python": judged(ratio, 1.1, 0.9, most=True),
        },
        plan_mb={part: round(size / MB, 1) for part, size in parts.items()},
        peers=versions("llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
