"""Code that the benchmarks share: interleaved runs, medians with their spread, one JSON line."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
Work = Callable[[], float]  # runs once, returns a rate (the larger, the better) or seconds


def interleaved(works: dict[str, Work], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Run every work in turn: A B C A B C …, so that a machine that drifts slows all alike."""
    figures: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + warmup):
        for name, work in works.items():
            figure = work()
            if number >= warmup:
                figures[name].append(figure)
    return figures


def timed(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def summary(figures: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(figures), "min": min(figures), "max": max(figures)}


def paired_ratio(figures: dict[str, list[float]], a: str, b: str) -> dict[str, float]:
    """a / b, round by round."""
    return summary([x / y for x, y in zip(figures[a], figures[b], strict=True)])


def machine() -> str:
    """The processor's name, or what the platform says."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the peers, for the record."""
    return {name: importlib.metadata.version(name) for name in packages}


def report(name: str, unit: str, figures: dict[str, list[float]], **facts: object) -> None:
    """Print a table, keep the figures in results/, and end with one JSON line."""
    print(f"\n{name} ({unit})")
    for work, values in figures.items():
        s = summary(values)
        print(f"  {work:34} median {s['median']:10.2f}   min {s['min']:10.2f}   max {s['max']:10.2f}")
    for fact, value in facts.items():
        print(f"  {fact}: {value}")
    record = {"benchmark": name, "unit": unit, "machine": machine(), "python": platform.python_version()}
    record |= {"figures": {work: summary(values) for work, values in figures.items()}} | facts
    RESULTS.mkdir(exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-")
    path = RESULTS / f"{slug}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[name] = record
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(record))
