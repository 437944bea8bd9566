"""Decoding and prefill beside llama.cpp and ik_llama.cpp on the same files: tokens/s and their ratios.

SmolLM2-135M in Q4_1 (its own file), GPT-2 small's shape in Q8_0, Q4_0 and F32, and its F32 file at precision
q8 beside llama.cpp's Q8_0. Decoding is 128 greedy tokens after a prompt of 16, and again after 800; prefill
is 512 tokens. Every side is a process of its own. llama.cpp runs with its defaults, which the bars speak of,
and with flash attention; ik_llama.cpp counts at its better one of -rtr 0 and 1.
Ceilings: of decoding, read bandwidth / bytes of weights; of prefill, the rate of 8-bit products.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/quantized.py [--rounds 5] [--threads 2] [NAME...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _ik import REPACKED, ik_commit, ik_folder, ik_rate
from _models import gpt2_gguf
from _sides import Side
from _timing import interleaved, judged, paired_ratio, report, summary

from pophood import hub
from pophood.model.engine import multiply_rate, read_bandwidth

WORKS = {"decode": (16, 128), "decode at 800": (800, 128), "prefill": (512, 0)}  # prompt, steps
LLAMA = {"llama.cpp": False, "llama.cpp with flash attention": True}  # the bars speak of its defaults
DECODE_CEILING = "ceiling (bandwidth / weights)"
PREFILL_CEILING = "ceiling (8-bit products)"
Pair = tuple[float, float]  # bar and aim of a ratio
Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Comparison:
    """One row: our file and precision, the file of the peers, and the bars of decoding and prefill."""

    path: Callable[[], Path]
    precision: str
    theirs: Callable[[], Path]
    peer: str  # that the bars speak of
    decode: Pair
    prefill: Pair
    for_ik: Callable[[], Path] | None = None  # the same file with an output matrix of its own


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return hub.locate("smollm2").path


def gpt2(blocks: str | None, *, output: bool = False) -> Callable[[], Path]:
    """GPT-2 small's shape in a type."""
    return lambda: gpt2_gguf(blocks, output=output)


ROWS = {
    "SmolLM2 Q4_1": Comparison(smollm2, "auto", smollm2, "ik", (1.15, 1.6), (1.3, 2.2), smollm2),
    "GPT-2 Q8_0": Comparison(
        gpt2("Q8_0"), "auto", gpt2("Q8_0"), "llama.cpp", (1.4, 1.8), (3, 4.5), gpt2("Q8_0", output=True)
    ),
    "GPT-2 Q4_0": Comparison(
        gpt2("Q4_0"), "auto", gpt2("Q4_0"), "llama.cpp", (1.5, 2.2), (2.5, 4), gpt2("Q4_0", output=True)
    ),
    "GPT-2 F32": Comparison(gpt2(None), "f32", gpt2(None), "llama.cpp", (1.2, 1.3), (1.2, 1.4)),
    "GPT-2 F32 at q8 beside Q8_0": Comparison(
        gpt2(None), "q8", gpt2("Q8_0"), "llama.cpp", (1.4, 1.8), (3, 4.5)
    ),
}


def ik_turn(path: Path | None, threads: int, repack: int, prompt: int, steps: int) -> Callable[[], float]:
    """One run of ik_llama.cpp's program."""
    assert path is not None
    return lambda: ik_rate(path, threads, repack, prompt, steps)


def compare(name: str, row: Comparison, rounds: int, threads: int) -> None:
    """Time one file, interleaved with the peers."""
    path = row.path()
    ours = Side("_speed_worker.py", side="pophood", path=str(path), precision=row.precision, threads=threads)
    theirs = {
        name: Side("_speed_worker.py", side="llama.cpp", path=str(row.theirs()), threads=threads, flash=flash)
        for name, flash in LLAMA.items()
    }
    ik = row.for_ik() if row.for_ik is not None and ik_folder() else None
    commit = ik_commit(ik) if ik else None
    bandwidth: list[float] = []
    products: list[float] = []

    def memory_ceiling() -> float:
        bandwidth.append(read_bandwidth(threads, rounds=10))
        return bandwidth[-1] / float(ours.ready["weight_bytes"])

    def product_ceiling() -> float:
        products.append(multiply_rate(threads))
        return products[-1] / float(ours.ready["operations"])

    works = {DECODE_CEILING: memory_ceiling}
    if row.precision != "f32":
        works[PREFILL_CEILING] = product_ceiling
    for work, (prompt, steps) in WORKS.items():
        works[f"pophood {work}"] = ours.turn(prompt, steps)
        works |= {f"{name} {work}": side.turn(prompt, steps) for name, side in theirs.items()}
        for repack in REPACKED if commit else ():
            works[f"ik -rtr {repack} {work}"] = lambda r=repack, p=prompt, s=steps: ik_rate(
                ik, threads, r, p, s
            )
    figures = interleaved(works, rounds)
    ratios, bars = ratios_of(name, row, figures)
    facts: dict[str, Any] = {"peers": {"llama-cpp-python": theirs["llama.cpp"].ready["version"]}}
    if products:
        facts["int8_tops"] = round(summary(products)["median"] / 1e12, 2)
        facts["share_of_int8_rate"] = paired_ratio(figures, "pophood prefill", PREFILL_CEILING)
    if commit:
        facts["peers"]["ik_llama.cpp"] = commit
    report(
        f"{name} beside llama.cpp and ik_llama.cpp",
        "tokens/s",
        figures,
        bars=bars,
        ratios=ratios,
        threads=threads,
        isa=ours.ready["isa"],
        bandwidth_gb_per_s=round(summary(bandwidth)["median"] / 1e9, 1),
        share_of_bandwidth=paired_ratio(figures, "pophood decode", DECODE_CEILING),
        **facts,
    )
    for side in (ours, *theirs.values()):
        side.end()


def ratios_of(
    name: str, row: Comparison, figures: dict[str, list[float]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ratios to every peer, and those that have a bar."""
    ratios, bars = {}, {}
    for work in WORKS:
        bar, aim = row.prefill if work == "prefill" else row.decode
        peers = {name: f"{name} {work}" for name in LLAMA}
        repacked = [f"ik -rtr {repack} {work}" for repack in REPACKED]
        if repacked[0] in figures:
            peers["ik"] = max(repacked, key=lambda side: summary(figures[side])["median"])
        for peer, side in peers.items():
            ratio = paired_ratio(figures, f"pophood {work}", side)
            ratios[f"{work} / {peer}"] = ratio
            if peer == row.peer:
                bars[f"{name}, {work} against {peer}"] = judged(ratio, bar, aim)
    return ratios, bars


def main() -> None:
    """Compare the files that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for name in options.names or ROWS:
        compare(name, ROWS[name], options.rounds, options.threads)


if __name__ == "__main__":
    main()
