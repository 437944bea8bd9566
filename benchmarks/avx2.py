"""Kernels for AVX2, under POPHOOD_ISA=avx2, beside llama.cpp built without AVX-512: tokens/s.

GPT-2 small's shape in Q8_0 and Q4_0; decoding is 128 greedy tokens after a prompt of 16, prefill 512 tokens.
The peer is llama-cpp-python's sdist in a folder of its own, which POPHOOD_PEER_LLAMA_AVX2 names:
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON" pip install
--no-binary llama-cpp-python --no-deps --target FOLDER llama-cpp-python
Run: POPHOOD_PEER_LLAMA_AVX2=FOLDER python benchmarks/avx2.py [--rounds 5] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from _models import gpt2_gguf
from _sides import Side
from _timing import interleaved, judged, paired_ratio, report

from pophood import _native

PLACE = "POPHOOD_PEER_LLAMA_AVX2"
WORKS = {"decode": (16, 128, 1.0, 1.3), "prefill": (512, 0, 1.2, 2.0)}  # prompt, steps, bar, aim


def compare(blocks: str, folder: str, rounds: int, threads: int) -> None:
    """Time one file on both sides."""
    path = str(gpt2_gguf(blocks))
    ours = Side("_speed_worker.py", {"POPHOOD_ISA": "avx2"}, side="pophood", path=path, threads=threads)
    theirs = Side("_speed_worker.py", {"PYTHONPATH": folder}, side="llama.cpp", path=path, threads=threads)
    assert ours.ready["isa"] == "avx2", ours.ready
    system = theirs.ready["system"]
    if "AVX512" in system or "AVX2 = 1" not in system:
        raise SystemExit(f"the build in {folder} is not for AVX2 alone: {system}")
    works = {}
    for work, (prompt, steps, _, _) in WORKS.items():
        for name, side in (("pophood", ours), ("llama.cpp", theirs)):
            works[f"{name} {work}"] = side.turn(prompt, steps)
    figures = interleaved(works, rounds)
    bars = {}
    for work, (_, _, bar, aim) in WORKS.items():
        ratio = paired_ratio(figures, f"pophood {work}", f"llama.cpp {work}")
        bars[f"AVX2, GPT-2 {blocks}, {work} against llama.cpp"] = judged(ratio, bar, aim)
    peers = {"llama-cpp-python": theirs.ready["version"], "system": system}
    report(f"AVX2 only, GPT-2 {blocks}", "tokens/s", figures, bars=bars, threads=threads, peers=peers)
    ours.end()
    theirs.end()


def main() -> None:
    """Compare both files, or say what is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    folder = os.environ.get(PLACE)
    if not folder or not (Path(folder) / "llama_cpp").is_dir():
        print(f"left out: {PLACE} names no folder with llama_cpp ({folder or 'not set'})")
        return
    if "avx2" not in _native.available_isa().split():
        print("left out: this processor has no AVX2")
        return
    for blocks in ("Q8_0", "Q4_0"):
        compare(blocks, folder, options.rounds, options.threads)


if __name__ == "__main__":
    main()
