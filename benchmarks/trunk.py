"""The last 4 blocks of GPT-2 small's shape, second epoch on, beside the same blocks in transformers f32.

What the frozen blocks make of the data is read from the disk instead of computed. 4 x 256 tokens, AdamW, no
dropout, two threads; both sides learn the same blocks from the same rows, and their first losses must agree.
The two take turns, a step each. Of completions only the last 25 % of every row are learned, as where prompts
are long; "seed-tasks" has the 41 % that Self-Instruct's seed tasks have.
Bars: 3 times the peer's tokens/s where all is learned, 4 where completions are (aims 4 and 6).
Ceiling: of the products' FLOPs the peer has 1.35 times ours where all is learned (12 blocks and the output
matrix forward, 4 blocks and the output matrix backward, against 4 of 12), 2.1 times at 25 %, 1.9 at 41 %;
the rest is how much faster the processor multiplies in bfloat16 than in float32.
Run: python benchmarks/trunk.py [--only all,completions,seed-tasks] [--rounds 7]
"""

from __future__ import annotations

import argparse
import sys

from _sides import Side, gpt2_at_init
from _timing import paired_ratio, report, versions

BATCH, LENGTH, BLOCKS = 4, 256, 4
# Name -> the share of each row that is learned, and the bar.
WORKS = {"all": (1.0, 3.0), "completions": (0.25, 4.0), "seed-tasks": (0.41, 4.0)}
WARMUP = 2


def run(name: str, rounds: int, threads: int, small: bool) -> None:
    """One row of the table."""
    share, bar = WORKS[name]
    facts = {"folder": str(gpt2_at_init(small)), "share": share, "threads": threads}
    facts |= {"batch": BATCH, "length": LENGTH, "blocks": 1 if small else BLOCKS}
    ours, theirs = "pophood", "transformers f32"
    sides = {label: Side("_trunk_worker.py", side=label, **facts) for label in (ours, theirs)}
    figures: dict[str, list[float]] = {label: [] for label in sides}
    losses: dict[str, list[float]] = {label: [] for label in sides}
    for number in range(rounds + WARMUP):
        for label, side in sides.items():
            said = side.ask()
            losses[label].append(said["loss"])
            if number >= WARMUP:
                figures[label].append(BATCH * LENGTH / said["seconds"])
    for side in sides.values():
        side.end()
    a, b = losses[ours][0], losses[theirs][0]
    if abs(a - b) > 0.01 * b:
        sys.exit(f"the sides do not learn the same: their first losses are {a:.4f} and {b:.4f}")
    times = paired_ratio(figures, ours, theirs)
    if small or rounds < 5:
        print(f"{name}: {figures}, {times}, losses {losses}")
        return
    report(
        f"tune trunk {name}: last {BLOCKS} blocks, second epoch on, {BATCH} x {LENGTH}, {share:.0%} learned",
        "tokens/s",
        figures,
        threads=threads,
        times_f32=times,
        bar=bar,
        bar_met=times["median"] >= bar,
        learned=sides[ours].ready["learned"],
        first_losses=[a, b],
        peers=versions("torch", "transformers"),
    )


def main() -> None:
    """All rows, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(WORKS))
    parser.add_argument("--rounds", type=int, default=7, help="of fewer than 5, nothing is recorded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="a tiny model, for a trial")
    chosen = parser.parse_args()
    for name in chosen.only.split(","):
        run(name, chosen.rounds, chosen.threads, chosen.small)


if __name__ == "__main__":
    main()
