"""Decoding and prefill beside llama.cpp and ik_llama.cpp on the same files: tokens/s and their ratios.

SmolLM2-135M in Q4_1 (its own file), GPT-2 small's shape in Q8_0, Q4_0 and F32, and its F32 file at precision
q8 beside llama.cpp's Q8_0. Decoding is 128 greedy tokens after a prompt of 16, and again after 800; prefill
is 512 tokens. `_beside.py` says how the sides run, and what the ceilings are.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/quantized.py [--rounds 5] [--threads 2] [NAME...]
[--no-amx]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from _amx import add_no_amx
from _beside import Comparison, compare
from _models import gpt2_gguf

from pophood import hub


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


def main() -> None:
    """Compare the files that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    for name in options.names or ROWS:
        title = f"{name} beside llama.cpp and ik_llama.cpp"
        compare(title, name, ROWS[name], options.rounds, options.threads)


if __name__ == "__main__":
    main()
