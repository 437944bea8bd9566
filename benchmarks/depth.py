"""Decoding of SmolLM2 at a depth of 8,000: what keys and values cost, and the speed beside the peers.

For each type of keys and values, f16 and q8: (time per token at depth 8,000 - at 16) / (bytes of keys and
values / read bandwidth), and decoding at 8,000 against the better of llama.cpp, with and without flash
attention (it quantises values only with it), and ik_llama.cpp, at its best settings, with the same type.
Sides are processes of their own, interleaved, the shallow turn before the deep one; ik_llama.cpp reads
its prompt anew in every turn. The peers' speed of reading 8,000 tokens is printed beside ours.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/depth.py [f16] [q8] [--rounds 5] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _amx import add_no_amx
from _ik import REPACKED, ik_commit, ik_rate
from _sides import Side
from _timing import interleaved, judged, paired_ratio, report, summary

from pophood import hub
from pophood.model.engine import read_bandwidth

DEPTH, SHALLOW, STEPS = 8000, 16, 32
COST = {"f16": (2.5, 1.5), "q8": (3, 2)}  # bar and aim of the cost in times of the ceiling
SPEED = (1.1, 1.3)
IK_TYPES = {"f16": "f16", "q8": "q8_0"}
Figures = dict[str, list[float]]


def deep(side: Side, depth: int) -> Callable[[], float]:
    """One turn of a side."""
    return lambda: float(side.ask(depth=depth, steps=STEPS)["rate"])


def ik_settings(path: Path, kv: str, threads: int) -> Callable[[], float]:
    """ik_llama.cpp's turn with the settings that are fastest in one try of each."""

    def turn(repack: int, flash: int) -> float:
        kinds = ("-ctk", IK_TYPES[kv], "-ctv", IK_TYPES[kv], "-fa", str(flash))
        return ik_rate(path, threads, repack, DEPTH, STEPS, kinds)

    flashes = (0, 1) if kv == "f16" else (1,)  # as in llama.cpp
    tried = {(repack, flash): turn(repack, flash) for repack in REPACKED for flash in flashes}
    print("ik_llama.cpp by (-rtr, -fa):", {setting: round(rate, 1) for setting, rate in tried.items()})
    best = max(tried, key=lambda setting: tried[setting])
    return lambda: turn(*best)


def compare(kv: str, rounds: int, threads: int) -> None:
    """Time one type of keys and values."""
    path = hub.locate("smollm2").path
    common = {"path": str(path), "kv": kv, "threads": threads, "depth": DEPTH}
    ours = Side("_depth_worker.py", side="pophood", **common)
    flashes = {"llama.cpp with flash attention": True} | ({"llama.cpp": False} if kv == "f16" else {})
    theirs = {
        name: Side("_depth_worker.py", side="llama.cpp", flash=flash, **common)
        for name, flash in flashes.items()
    }
    sides = {"pophood": ours, **theirs}
    works: dict[str, Callable[[], float]] = {
        "read bandwidth (GB/s)": lambda: read_bandwidth(threads, rounds=10) / 1e9,
        "pophood at 16": deep(ours, SHALLOW),
        "pophood at 8,000": deep(ours, DEPTH),
    }
    works |= {name: deep(side, DEPTH) for name, side in theirs.items()}
    commit = ik_commit(path)
    if commit:
        works["ik_llama.cpp"] = ik_settings(path, kv, threads)
    figures = interleaved(works, rounds)
    kv_bytes = int(ours.ready["kv_bytes"])
    peers = [*theirs, *(["ik_llama.cpp"] if commit else [])]
    best = max(peers, key=lambda side: summary(figures[side])["median"])
    bars = {
        f"SmolLM2, {kv} keys and values, cost at 8,000 / ceiling": judged(
            cost(figures, kv_bytes), *COST[kv], most=True
        ),
        f"SmolLM2, {kv} keys and values, decode at 8,000 against {best}": judged(
            paired_ratio(figures, "pophood at 8,000", best), *SPEED
        ),
    }
    facts: dict[str, Any] = {"peers": {name: side.ready["version"] for name, side in theirs.items()}}
    report(
        f"SmolLM2 at depth with {kv} keys and values",
        "tokens/s",
        figures,
        bars=bars,
        ratios={f"decode / {peer}": paired_ratio(figures, "pophood at 8,000", peer) for peer in peers},
        threads=threads,
        isa=ours.ready["isa"],
        kv_bytes=kv_bytes,
        prefill_8000={
            name: round(side.ready["prefill"]) for name, side in {"pophood": ours, **theirs}.items()
        },
        ik_llama=commit,
        **facts,
    )
    for side in sides.values():
        side.end()


def cost(figures: Figures, kv_bytes: int) -> dict[str, float]:
    """Seconds that a token takes longer at depth, in times of what reading its keys and values takes."""
    works = ("read bandwidth (GB/s)", "pophood at 16", "pophood at 8,000")
    rounds = zip(*(figures[work] for work in works), strict=True)
    return summary([(1 / at - 1 / shallow) / (kv_bytes / (gb * 1e9)) for gb, shallow, at in rounds])


def main() -> None:
    """Compare the types that are named, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="TYPE", help="f16, q8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    for kv in options.kinds or COST:
        compare(kv, options.rounds, options.threads)


if __name__ == "__main__":
    main()
