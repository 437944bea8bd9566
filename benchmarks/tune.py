"""Fine-tuning GPT-2 small's shape: tokens/s and peak memory beside transformers and PEFT, two threads.

Every side is a process of its own; they take turns, a step each, so that a drift slows all alike.
Ceiling: the products alone, 6 FLOPs per parameter and token at the rate of plain bfloat16 products.
Bars (times of f32 / of bf16 autocast): full 4 x 256 1.9 / 1.3; full 1 x 1024 1.8 / 1.2; with dropout 0.1
2.1 / 1.4 and 3 / 1.9; LoRA 2.4 / 1.8. Memory 48 % and 28 % of f32. 60 % of the rate of the products.
Run: python benchmarks/tune.py [--only full,long,dropout,dropout-long,lora] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _models import gpt2_folder
from _timing import paired_ratio, report, versions

PARAMETERS = 124_439_808
WORKER = Path(__file__).parent / "_tune_worker.py"
# Name -> our method, the peer, rows, positions, dropout.
WORKS: dict[str, tuple[str, str, int, int, float]] = {
    "full": ("full", "transformers", 4, 256, 0.0),
    "long": ("full", "transformers", 1, 1024, 0.0),
    "dropout": ("full", "transformers", 4, 256, 0.1),
    "dropout-long": ("full", "transformers", 1, 1024, 0.1),
    "lora": ("lora", "peft", 4, 256, 0.0),
}


class Side:
    """One process that waits for its turn."""

    def __init__(self, **facts: Any) -> None:
        command = [sys.executable, str(WORKER), json.dumps(facts)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()
        self.peak = 0

    def step(self) -> dict[str, Any]:
        """One step; its seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._line())
        self.peak = max(self.peak, said["peak"])
        return said

    def end(self) -> None:
        """No more turns."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a side of the benchmark has ended: its words are above")
        return line


def run(name: str, rounds: int, threads: int) -> None:
    """One row of the table."""
    method, peer, batch, length, dropout = WORKS[name]
    facts = {"batch": batch, "length": length, "dropout": dropout, "threads": threads}
    names = {"pophood": f"pophood-{method}", f"{peer} f32": f"{peer}-f32", f"{peer} bf16": f"{peer}-bf16"}
    names |= {"plain bf16 products": "gemm"} if name == "full" else {}
    sides = {label: Side(side=side, **facts) for label, side in names.items()}
    figures: dict[str, list[float]] = {label: [] for label in names}
    for number in range(rounds + 2):
        for label, side in sides.items():
            said = side.step()
            if number < 2:
                continue
            rate = said["result"] / (6 * PARAMETERS) if label == "plain bf16 products" else None
            figures[label].append(rate or batch * length / said["seconds"])
    for side in sides.values():
        side.end()
    more: dict[str, Any] = {}
    if name == "full":
        more["share_of_products"] = paired_ratio(figures, "pophood", "plain bf16 products")
    peaks = {label: side.peak for label, side in sides.items() if label != "plain bf16 products"}
    report(
        f"tune {name}: {method}, {batch} x {length}, dropout {dropout:g}, GPT-2 small",
        "tokens/s",
        figures,
        threads=threads,
        times_f32=paired_ratio(figures, "pophood", f"{peer} f32"),
        times_bf16=paired_ratio(figures, "pophood", f"{peer} bf16"),
        peak_mib={label: peak >> 20 for label, peak in peaks.items()},
        memory_share_of_f32=peaks["pophood"] / peaks[f"{peer} f32"],
        peers=versions("torch", "transformers", "peft"),
        **more,
    )


def main() -> None:
    """All rows, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    gpt2_folder()
    for name in chosen.only.split(","):
        run(name, chosen.rounds, chosen.threads)


if __name__ == "__main__":
    main()
