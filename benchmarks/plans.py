"""The plan of `pophood tune` beside what the run then takes: memory and time of ten configurations.

Each is the command as a person types it, in a process of its own, on SmolLM2 or from scratch; the figures are
those of its report card. Bars: memory within 15 % and time within 25 % in each; medians within 15 %.
Nothing else may run meanwhile: a plan is measured in seconds and holds for a machine that stays as it is.
Run: python benchmarks/plans.py [--only "lora;full"] [--steps 24]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _sides import SEED_TASKS, TEXT
from _timing import report, summary

# Name -> data, options. Of SmolLM2 unless it begins from scratch.
PLANS: dict[str, tuple[Path, str]] = {
    "lora": (TEXT, ""),
    "lora, tasks": (SEED_TASKS, ""),
    "lora, 1 x 1024": (TEXT, "--batch-size 1 --length 1024"),
    "lora, rank 64, accumulated": (TEXT, "--rank 64 --accumulation 3 --batch-size 2"),
    "lora, q8": (TEXT, "--base q8"),
    "lora, f32": (TEXT, "--precision f32 --batch-size 2"),
    "full": (TEXT, "--method full"),
    "full, computed twice": (TEXT, "--method full --recompute"),
    "last 4 blocks": (TEXT, "--method last"),
    "from scratch": (TEXT, "--from-scratch gpt2-mini --steps 120"),
}


def run(name: str, steps: int) -> dict[str, Any]:
    """One run's plan and what it took."""
    data, options = PLANS[name]
    model = [] if "--from-scratch" in options else ["-m", "smollm2"]
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "pophood", "tune", str(data), *model, "--steps", str(steps)]
        line += [*options.split(), "--evaluations", "3", "-o", f"{folder}/out", "--json"]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        card = json.loads((Path(folder) / "out" / "report.json").read_text(encoding="utf-8"))
    return {key: (card["plan"][key], card["actual"][key]) for key in ("memory", "seconds")}


def main() -> None:
    """All of them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="names, separated by ;")
    parser.add_argument("--steps", type=int, default=24)
    chosen = parser.parse_args()
    off: dict[str, list[float]] = {"memory": [], "time": []}
    rows: dict[str, str] = {}
    for name in chosen.only.split(";") if chosen.only else PLANS:
        found = run(name, chosen.steps)
        (memory, memory_taken), (seconds, seconds_taken) = found["memory"], found["seconds"]
        off["memory"].append(100 * (memory / memory_taken - 1))
        off["time"].append(100 * (seconds / seconds_taken - 1))
        rows[name] = (
            f"{memory / 2**30:.2f} of {memory_taken / 2**30:.2f} GiB ({off['memory'][-1]:+.0f} %),"
            f" {seconds:.0f} of {seconds_taken:.0f} s ({off['time'][-1]:+.0f} %)"
        )
        print(f"{name}: {rows[name]}", flush=True)
    away = {what: summary([abs(figure) for figure in figures]) for what, figures in off.items()}
    report("plans of tune: predicted less taken", "%", off, away=away, runs=rows)


if __name__ == "__main__":
    main()
