"""Our side beside llama.cpp and ik_llama.cpp on the same file, interleaved: tokens/s, ratios and bars.

Every side is a process of its own. llama.cpp runs with its defaults, which the bars speak of, and with flash
attention; ik_llama.cpp counts at its better one of -rtr 0 and 1.
Ceilings: of decoding, read bandwidth / bytes of weights; of prefill, the rate of 8-bit products.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _ik import REPACKED, ik_commit, ik_folder, ik_rate
from _sides import Side
from _timing import Work, interleaved, judged, paired_ratio, report, summary

from pophood.model.engine import multiply_rate, read_bandwidth

WORKS = {"decode": (16, 128), "decode at 800": (800, 128), "prefill": (512, 0)}  # prompt, steps
LLAMA = {"llama.cpp": False, "llama.cpp with flash attention": True}  # the bars speak of its defaults
BETTER = "the better peer"  # of llama.cpp with its defaults and ik_llama.cpp
DECODE_CEILING = "ceiling (bandwidth / weights)"
PREFILL_CEILING = "ceiling (8-bit products)"
Pair = tuple[float, float]  # bar and aim of a ratio
Figures = dict[str, list[float]]
Ratios = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """One row: our file and precision, the file of the peers, and the bars of decoding and prefill.

    `peer` is "llama.cpp", "ik" or BETTER, the one that the bars speak of; a work without a bar is only
    printed. `works` are keys of WORKS.
    """

    path: Callable[[], Path]
    precision: str
    theirs: Callable[[], Path]
    peer: str
    decode: Pair | None
    prefill: Pair | None
    for_ik: Callable[[], Path] | None = None  # the same file, for GPT-2 with an output matrix of its own
    works: tuple[str, ...] = tuple(WORKS)


@dataclass(frozen=True)
class Sides:
    """The processes of one comparison, and the file of ik_llama.cpp with the commit of its build."""

    ours: Side
    llama: Mapping[str, Side]
    ik: Path | None
    commit: str | None
    threads: int

    @classmethod
    def start(cls, row: Comparison, threads: int) -> Sides:
        """Load the files of a row on every side."""
        path, theirs, worker = str(row.path()), str(row.theirs()), "_speed_worker.py"
        ours = Side(worker, side="pophood", path=path, precision=row.precision, threads=threads)
        llama = {
            name: Side(worker, side="llama.cpp", path=theirs, threads=threads, flash=flash)
            for name, flash in LLAMA.items()
        }
        ik = row.for_ik() if row.for_ik is not None and ik_folder() else None
        return cls(ours, llama, ik, ik_commit(ik) if ik else None, threads)

    def works(self, names: tuple[str, ...]) -> dict[str, Work]:
        """Every work on every side, by the name that it is reported with."""
        works: dict[str, Work] = {}
        for work in names:
            prompt, steps = WORKS[work]
            works[f"pophood {work}"] = self.ours.turn(prompt, steps)
            works |= {f"{name} {work}": side.turn(prompt, steps) for name, side in self.llama.items()}
            for repack in REPACKED if self.ik is not None and self.commit else ():
                works[f"ik -rtr {repack} {work}"] = functools.partial(
                    ik_rate, self.ik, self.threads, repack, prompt, steps
                )
        return works

    def end(self) -> None:
        """End the processes."""
        for side in (self.ours, *self.llama.values()):
            side.end()


def compare(title: str, name: str, row: Comparison, rounds: int, threads: int) -> tuple[Ratios, Ratios]:
    """Time one file on all sides and report it; return all ratios, and those that have a bar."""
    sides = Sides.start(row, threads)
    bandwidth: list[float] = []
    products: list[float] = []

    def memory_ceiling() -> float:
        bandwidth.append(read_bandwidth(threads, rounds=10))
        return bandwidth[-1] / float(sides.ours.ready["weight_bytes"])

    def product_ceiling() -> float:
        products.append(multiply_rate(threads))
        return products[-1] / float(sides.ours.ready["operations"])

    works: dict[str, Work] = {DECODE_CEILING: memory_ceiling}
    if row.precision != "f32":
        works[PREFILL_CEILING] = product_ceiling
    figures = interleaved(works | sides.works(row.works), rounds)
    ratios, bars = ratios_of(name, row, figures)
    facts: dict[str, Any] = {"peers": {"llama-cpp-python": sides.llama["llama.cpp"].ready["version"]}}
    if products:
        facts["int8_tops"] = round(summary(products)["median"] / 1e12, 2)
        if "prefill" in row.works:
            facts["share_of_int8_rate"] = paired_ratio(figures, "pophood prefill", PREFILL_CEILING)
    if "decode" in row.works:
        facts["share_of_bandwidth"] = paired_ratio(figures, "pophood decode", DECODE_CEILING)
    if sides.commit:
        facts["peers"]["ik_llama.cpp"] = sides.commit
    report(
        title,
        "tokens/s",
        figures,
        bars=bars,
        ratios=ratios,
        threads=threads,
        isa=sides.ours.ready["isa"],
        weight_bytes=sides.ours.ready["weight_bytes"],
        bandwidth_gb_per_s=round(summary(bandwidth)["median"] / 1e9, 1),
        **facts,
    )
    sides.end()
    return ratios, bars


def ratios_of(name: str, row: Comparison, figures: Figures) -> tuple[Ratios, Ratios]:
    """Ratios to every peer, and those that have a bar."""
    ratios: Ratios = {}
    bars: Ratios = {}

    def speed(side: str) -> float:
        return summary(figures[side])["median"]

    for work in row.works:
        target = row.prefill if work == "prefill" else row.decode
        peers = {name: f"{name} {work}" for name in LLAMA}
        repacked = [f"ik -rtr {repack} {work}" for repack in REPACKED]
        if repacked[0] in figures:
            peers["ik"] = max(repacked, key=speed)
        ratios |= {
            f"{work} / {peer}": paired_ratio(figures, f"pophood {work}", side) for peer, side in peers.items()
        }
        peer = row.peer
        if peer == BETTER:
            peer = max((p for p in ("llama.cpp", "ik") if p in peers), key=lambda p: speed(peers[p]))
        if target is not None and peer in peers:
            bars[f"{name}, {work} against {peer}"] = judged(ratios[f"{work} / {peer}"], *target)
    return ratios, bars
