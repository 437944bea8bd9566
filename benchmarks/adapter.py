"""Decoding with a rank-8 adapter on every matrix of the blocks against decoding without one: tokens/s.

SmolLM2-135M in Q4_1 and GPT-2 small's shape in Q8_0; 128 greedy tokens through `LM.stream` after a prompt of
16. Ceiling: the adapter's own bytes, which are read in float32. At rank 8 they are 10 MB beside SmolLM2's 97
and 5 MB beside GPT-2's 132, which is 0.91 and 0.96 where bandwidth is what limits decoding. Bar: 0.9 times
the speed without.
Run: python benchmarks/adapter.py [--rounds 5] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _amx import add_no_amx
from _models import gpt2_gguf
from _sides import Side
from _timing import interleaved, judged, paired_ratio, report

from pophood import hub

RANK = 8
PROMPT, STEPS = 16, 128
BAR, AIM = 0.9, 0.95


def compare(name: str, path: Path, rounds: int, threads: int) -> None:
    """Time one file with and without."""
    plain = Side("_speed_worker.py", side="pophood", path=str(path), threads=threads)
    changed = Side("_speed_worker.py", side="pophood", path=str(path), threads=threads, adapter=RANK)
    works = {
        "with a rank-8 adapter": changed.turn(PROMPT, STEPS),
        "without": plain.turn(PROMPT, STEPS),
    }
    figures = interleaved(works, rounds)
    ratio = paired_ratio(figures, "with a rank-8 adapter", "without")
    report(
        f"decoding with an adapter, {name}",
        "tokens/s",
        figures,
        bars={f"{name}, decode with a rank-8 adapter against without": judged(ratio, BAR, AIM)},
        threads=threads,
        isa=plain.ready["isa"],
        weight_bytes=plain.ready["weight_bytes"],
        adapter_bytes=changed.ready["adapter_bytes"],
    )
    plain.end()
    changed.end()


def main() -> None:
    """Compare both files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    compare("GPT-2 Q8_0", gpt2_gguf("Q8_0"), options.rounds, options.threads)
    compare("SmolLM2 Q4_1", hub.locate("smollm2").path, options.rounds, options.threads)


if __name__ == "__main__":
    main()
