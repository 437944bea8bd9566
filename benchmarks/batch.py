"""Eight sequences in one batch: tokens/s of all, beside one of ours and beside the peers' batches of eight.

GPT-2 small's and SmolLM2's shapes in Q8_0. Each sequence has its own prompt of 16 tokens and gets 128 greedy
tokens. pophood runs `generate_batch`, llama.cpp `llama_decode` with its defaults (the bars speak of them) and
with flash attention, ik_llama.cpp its llama-batched-bench, with repacked weights (-rtr) or not, whichever is
faster. Every side is a process of its own. Bars: 3.5 times one sequence; 1.3 times the better peer.
Ceilings: as `pophood bench --batch 8` has them, 8 x bandwidth / weights or the rate of 8-bit products.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/batch.py [--rounds 5] [--threads 2] [--shapes smollm2]
[--no-amx]
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from _amx import add_no_amx
from _ik import PLACE, REPACKED, ik_commit
from _models import KEPT, gpt2_gguf, quantised_gguf, smollm2_gguf
from _sides import Side
from _timing import Work, interleaved, judged, paired_ratio, report, summary

PROMPT, STEPS, SEQUENCES = 16, 128, 8
LLAMA = {"llama.cpp": False, "llama.cpp with flash attention": True}
SHAPES: dict[str, Callable[[], Path]] = {
    "gpt2": lambda: gpt2_gguf("Q8_0"),
    "smollm2": lambda: quantised_gguf(smollm2_gguf(), "Q8_0"),
}


def turn(side: Side, sequences: int) -> Callable[[], float]:
    """One turn of `_batch_worker.py`: tokens/s of all sequences."""
    return lambda: float(side.ask(sequences=sequences, prompt=PROMPT, steps=STEPS)["rate"])


def ik_rate(path: Path, threads: int, repack: int) -> float:
    """Tokens/s of all sequences by ik_llama.cpp's program, which prints a table with the column S_TG."""
    sizes = ["-npp", str(PROMPT), "-ntg", str(STEPS), "-npl", str(SEQUENCES)]
    context = str(2 * SEQUENCES * (PROMPT + STEPS))
    program = f"{os.environ[PLACE]}/llama-batched-bench"
    command = [program, "-m", str(path), "-c", context, "-b", "512", "-ub", "512", "-t", str(threads), *sizes]
    command += ["-rtr"] * repack
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=KEPT)  # it writes a log
    rows = [line.split("|") for line in (done.stdout + done.stderr).splitlines() if line.startswith("|")]
    column = [cell.strip() for cell in rows[0]].index("S_TG t/s")
    assert [int(cell) for cell in rows[-1][1:4]] == [PROMPT, STEPS, SEQUENCES]
    return float(rows[-1][column])


def compare(shape: str, rounds: int, threads: int) -> None:
    """Time one shape on all sides."""
    path = SHAPES[shape]()
    worker = functools.partial(Side, "_batch_worker.py", path=str(path), threads=threads)
    ours = worker(side="pophood")
    theirs = {name: worker(side="llama.cpp", flash=flash) for name, flash in LLAMA.items()}
    works: dict[str, Work] = {"pophood, 1": turn(ours, 1), "pophood, 8": turn(ours, SEQUENCES)}
    works |= {f"{name}, 8": turn(side, SEQUENCES) for name, side in theirs.items()}
    commit = ik_commit(path) if (Path(os.environ.get(PLACE, "")) / "llama-batched-bench").exists() else None
    for repack in REPACKED if commit else ():
        works[f"ik -rtr {repack}, 8"] = functools.partial(ik_rate, path, threads, repack)
    figures = interleaved(works, rounds)
    ratios = {
        f"8 / {name}": paired_ratio(figures, "pophood, 8", name) for name in works if name != "pophood, 8"
    }
    peers = [name for name in works if name.startswith(("llama.cpp, ", "ik"))]
    better = max(peers, key=lambda name: summary(figures[name])["median"])
    bars = {
        f"{shape} Q8_0, 8 sequences against 1": judged(ratios["8 / pophood, 1"], 3.5, 6.0),
        f"{shape} Q8_0, 8 sequences against {better}": judged(ratios[f"8 / {better}"], 1.3, 3.0),
    }
    versions = {"llama-cpp-python": theirs["llama.cpp"].ready["version"]}
    versions |= {"ik_llama.cpp": commit} if commit else {}
    report(
        f"{shape} Q8_0, batches",
        "tokens/s",
        figures,
        bars=bars,
        ratios=ratios,
        threads=threads,
        isa=ours.ready["isa"],
        weight_bytes=ours.ready["weight_bytes"],
        peers=versions,
    )
    for side in (ours, *theirs.values()):
        side.end()


def main() -> None:
    """Compare the shapes that are asked for, or both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    for shape in options.shapes:
        compare(shape, options.rounds, options.threads)


if __name__ == "__main__":
    main()
