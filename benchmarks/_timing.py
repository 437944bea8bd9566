"""Code that the benchmarks share: interleaved runs, medians with their spread, bars, one JSON line."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from _machine import description, others_seconds, slug

RESULTS = Path(__file__).parent / "results"
DISTURBED = 0.1  # processors that other programs may take during a round
Work = Callable[[], float]  # runs once, returns a rate (the larger, the better) or seconds


def interleaved(works: dict[str, Work], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Run every work in turn: A B C A B C …, so that a machine that drifts slows all alike.

    A round during which other programs computed is repeated, at most as often as there are rounds.
    """
    figures: dict[str, list[float]] = {name: [] for name in works}
    number, repeats = -warmup, 0
    while number < rounds:
        others, start = others_seconds(), time.perf_counter()
        one = {name: work() for name, work in works.items()}
        taken = (others_seconds() - others) / (time.perf_counter() - start)
        if number >= 0 and taken > DISTURBED and repeats < rounds:
            repeats += 1
            print(f"a round is repeated: other programs took {taken:.2f} processors", flush=True)
            wait_for_quiet()
            continue
        number += 1
        if number > 0:
            for name, figure in one.items():
                figures[name].append(figure)
    return figures


def wait_for_quiet() -> None:
    """Wait until other programs leave the processors alone for half a second, at most for half a minute."""
    for _ in range(60):
        before = others_seconds()
        time.sleep(0.5)
        if others_seconds() - before < DISTURBED / 2:
            return


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


def judged(ratio: dict[str, float], bar: float, aim: float, *, most: bool = False) -> dict[str, float | bool]:
    """A figure with its bar and aim: it is met if the median is at least the bar, or at most with `most`."""
    met = bool(ratio["median"] <= bar if most else ratio["median"] >= bar)
    return ratio | {"bar": bar, "aim": aim, "at_most": most, "met": met}


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the peers, for the record."""
    return {name: importlib.metadata.version(name) for name in packages}


def report(
    name: str, unit: str, figures: dict[str, list[float]], *, place: Path | None = None, **facts: object
) -> None:
    """Print a table, keep the figures in results/ (else in the file `place`), and end with one JSON line.

    `bars` among the facts maps what was compared to what `judged` returned.
    """
    print(f"\n{name} ({unit})")
    for work, values in figures.items():
        s = summary(values)
        print(f"  {work:34} median {s['median']:10.5g}   min {s['min']:10.5g}   max {s['max']:10.5g}")
    for fact, value in facts.items():
        if isinstance(value, dict) and fact in ("bars", "ratios"):
            for what, ratio in value.items():
                print(f"  {what}: {verdict(ratio)}")
        elif isinstance(value, dict) and "median" in value:
            print(f"  {fact}: {verdict(value)}")
        else:
            print(f"  {fact}: {value}")
    machine = description()
    record = {"benchmark": name, "unit": unit, "machine": machine, "python": platform.python_version()}
    record |= {"figures": {work: summary(values) for work, values in figures.items()}} | facts
    path = place or RESULTS / f"{slug()}.json"
    path.parent.mkdir(exist_ok=True)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[name] = record
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(record), flush=True)


def verdict(ratio: dict[str, float]) -> str:
    """A ratio as one line: median, spread and, if it was judged, bar, aim and "missed" where it is."""
    spread = f"{ratio['median']:.3g} ({ratio['min']:.3g} to {ratio['max']:.3g})"
    if "bar" not in ratio:
        return spread
    side = "at most" if ratio["at_most"] else "at least"
    return f"{spread}, {side} {ratio['bar']:g}, aim {ratio['aim']:g}{'' if ratio['met'] else ': missed'}"
