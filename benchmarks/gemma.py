"""Gemma 3 270M (Q4_K_M) as it is published, beside llama.cpp and ik_llama.cpp: tokens/s and their ratios.

The file is that of `pophood pull gemma3-270m`, which must have been pulled. Of its 247 MB of weights, 180 MB
are the output matrix (262,144 tokens, Q8_0), which every step of decoding reads. Decoding is 128 greedy
tokens after a prompt of 16; prefill is 512 tokens, as long as the model's window. `_beside.py` says how the
sides run.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/gemma.py [--works decode prefill] [--rounds 5]
[--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse

from _amx import add_no_amx
from _beside import BETTER, WORKS, Comparison, compare
from _timing import verdict

from pophood import hub


def main() -> None:
    """Compare, and print all ratios once more at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=["decode", "prefill"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    path = hub.locate("gemma3-270m", offline=True).path
    row = Comparison(
        lambda: path, "auto", lambda: path, BETTER, (1.1, 1.4), (1.3, 2.0), lambda: path, tuple(options.works)
    )
    title = "Gemma 3 270M Q4_K_M"
    ratios, bars = compare(f"{title}, as stored", title, row, options.rounds, options.threads)
    for what, ratio in (ratios | bars).items():
        print(f"{what}: {verdict(ratio)}")


if __name__ == "__main__":
    main()
