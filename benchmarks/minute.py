"""`pophood tune TEXT --minutes 1` with SmolLM2: does a minute take a minute, and what of it are steps?

Rounds by turns: on the machine as it is, and while another process keeps one core busy. The ceiling is a
minute that is all optimizer steps. Bars: the last line is printed 54 to 66 s after measuring began; at least
8 steps; the validation loss falls; on a quiet machine at least 60 % of the minute are steps.
Run: python benchmarks/minute.py [--rounds 3] [--minutes 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _sides import TEXT
from _timing import report

QUIET, BUSY = "as it is", "one core taken"


@contextmanager
def a_core_taken() -> Iterator[None]:
    """While this lasts another process computes without end."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def run(minutes: float) -> dict[str, Any]:
    """One run as a person types it: its times, steps and losses."""
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "pophood", "tune", str(TEXT), "-m", "smollm2"]
        line += ["--minutes", str(minutes), "-o", f"{folder}/out"]
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        ) as process:
            assert process.stdout is not None
            began = ended = 0.0
            for words in process.stdout:
                ended = time.monotonic()
                began = began or (ended if words.startswith("measuring: 1 ") else 0.0)
        if process.returncode:
            sys.exit(f"the run ended with {process.returncode}: {words}")
        events = [json.loads(text) for text in (Path(folder) / "out" / "events.jsonl").open(encoding="utf-8")]
        card = json.loads((Path(folder) / "out" / "report.json").read_text(encoding="utf-8"))
    started = next(event for event in events if event["event"] == "started")
    steps = [event for event in events if event["event"] == "step"]
    stepping = sum(started["tokens_per_step"] / event["tokens_per_second"] for event in steps)
    return {
        "seconds": ended - began,
        "steps": len(steps),
        "planned": started["steps"],
        "share": 100 * stepping / (60 * minutes),
        "fell": card["loss_before"] - card["loss_after"],
    }


def main() -> None:
    """Rounds by turns, a table, and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=1.0)
    chosen = parser.parse_args()
    figures: dict[str, list[float]] = {}
    runs, met = list[dict[str, Any]](), True
    for number in range(chosen.rounds):
        for load in (QUIET, BUSY):
            before = os.getloadavg()[0]
            if load == BUSY:
                with a_core_taken():
                    found = run(chosen.minutes)
            else:
                found = run(chosen.minutes)
            runs.append({"round": number + 1, "load": load, "load average before": before, **found})
            print(
                ", ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in runs[-1].items())
            )
            for what, unit in (("seconds", "s"), ("steps", ""), ("share", "% in steps"), ("fell", "nats")):
                figures.setdefault(f"{load}: {what} {unit}".strip(), []).append(found[what])
            target = 60 * chosen.minutes
            met &= (
                0.9 * target <= found["seconds"] <= 1.1 * target and found["steps"] >= 8 and found["fell"] > 0
            )
            met &= load == BUSY or found["share"] >= 60
    report(f"tune --minutes {chosen.minutes:g}", "by row", figures, runs=runs, bars_met=met)


if __name__ == "__main__":
    main()
