"""Decoding while other processes compute: our default threads beside one and two threads, and llama.cpp's.

One and then two processes (`while True: pass`) take a core each of two. SmolLM2-135M in Q4_1, 128 greedy
tokens after a prompt of 16. Bars: with one core taken 0.9 times our better of one and two threads, with both
taken 0.8 times; 1.0 times llama.cpp's better of the two in either case. Ceiling: the processor time that is
left, half of one thread's speed at two taken cores. A side that a trial shows to be slower than half of
its better one is not timed again: llama.cpp generates one token a second where both cores are taken.
Run: python benchmarks/busy.py [--rounds 5] [--taken 1] [--taken 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _amx import add_no_amx
from _sides import Side
from _timing import Work, interleaved, judged, paired_ratio, report, summary

from pophood import hub

PROMPT, STEPS, TRIAL = 16, 128, 8
SIDES: dict[str, tuple[str, int | None]] = {
    "pophood, default threads": ("pophood", None),
    "pophood, 1 thread": ("pophood", 1),
    "pophood, 2 threads": ("pophood", 2),
    "llama.cpp, 1 thread": ("llama.cpp", 1),
    "llama.cpp, 2 threads": ("llama.cpp", 2),
}
BARS = {1: (0.9, 1.0), 2: (0.8, 1.0)}  # cores taken: against our better, against llama.cpp's better
AIM = 1.0


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Processes that compute as long as the context is open."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def tried(sides: dict[str, Side]) -> dict[str, float]:
    """Tokens/s of a short trial of each side, the second of two."""
    for side in sides.values():
        side.turn(PROMPT, 1)()
    return {name: side.turn(PROMPT, TRIAL)() for name, side in sides.items()}


def worth_timing(trial: dict[str, float]) -> list[str]:
    """Sides at least half as fast as the better one of their program, and our default."""
    chosen = []
    for name, rate in trial.items():
        program = name.partition(",")[0]
        best = max(other for key, other in trial.items() if key.startswith(program))
        if rate >= best / 2 or "default" in name:
            chosen.append(name)
    return chosen


def compare(sides: dict[str, Side], taken: int, rounds: int) -> None:
    """Time all sides under one load."""
    with load(taken):
        trial = tried(sides)
        works: dict[str, Work] = {name: sides[name].turn(PROMPT, STEPS) for name in worth_timing(trial)}
        figures = interleaved(works, rounds)

    def better(program: str) -> str:
        fixed = [name for name in figures if name.startswith(program) and "default" not in name]
        return max(fixed, key=lambda name: summary(figures[name])["median"])

    default, bars = "pophood, default threads", {}
    for program, bar in zip(("pophood", "llama.cpp"), BARS[taken], strict=True):
        ratio = paired_ratio(figures, default, better(program))
        bars[f"{taken} of 2 cores taken, default threads against {better(program)}"] = judged(ratio, bar, AIM)
    facts: dict[str, Any] = {"trial_of_8_tokens": {name: round(rate, 1) for name, rate in trial.items()}}
    report(f"decoding with {taken} of 2 cores taken, SmolLM2 Q4_1", "tokens/s", figures, bars=bars, **facts)


def main() -> None:
    """Compare under one process and under two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--taken", type=int, action="append", choices=list(BARS))
    add_no_amx(parser)
    options = parser.parse_args()
    path = str(hub.locate("smollm2").path)
    sides = {
        name: Side("_speed_worker.py", side=program, path=path, threads=threads)
        for name, (program, threads) in SIDES.items()
    }
    for taken in options.taken or BARS:
        compare(sides, taken, options.rounds)
    for side in sides.values():
        side.end()


if __name__ == "__main__":
    main()
