"""Equal learning: 200 steps of full fine-tuning in pophood and in transformers f32, loss beside loss.

Same weights (GPT-2 small's shape at GPT-2's initialisation, or SmolLM2), same 4 x 256 tokens of
tinyshakespeare in the same order, each row one stretch of it; no dropout, AdamW (0.9, 0.999) with decay of
matrices alone, 20 steps of warm-up and a cosine, gradients clipped to 1. pophood multiplies in what the
processor is best at (bfloat16 with float32 masters). One side runs after the other: 15 to 20 minutes.
Bars: training loss within 1 % at every 20th step, validation loss on held-out stretches within 0.5 % at the
end; exits with 1 where one is missed. Ceiling: 0 % is bit-equality, which other orders of summation lack.
Run: python benchmarks/same_learning.py [--model smollm2] [--precision f32] [--text FILE] [--steps 200]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from _sides import TEXT, Side, gpt2_at_init, smollm2_folder
from _timing import report, versions

TRAINING_BAR, VALIDATION_BAR = 1.0, 0.5  # per cent


def run_of(side: str, steps: int, facts: dict[str, Any]) -> dict[str, Any]:
    """One side's losses by step, its validation losses before and after, its seconds."""
    process = Side("_learning_worker.py", side=side, steps=steps, **facts)
    losses: dict[int, float] = {}
    validation: list[float] = []
    seconds = 0.0
    while len(validation) < 2:
        said = process.answer()
        if "validation" in said:
            validation.append(said["validation"])
        else:
            losses[said["step"]], seconds = said["loss"], said["seconds"]
            if said["step"] % 10 == 0:
                print(f"  {side}: step {said['step']}, loss {said['loss']:.4f}", flush=True)
    process.end()
    return {"losses": losses, "validation": validation, "seconds": seconds, "data": process.ready}


def per_cent(ours: float, theirs: float) -> float:
    """How far apart, in per cent of theirs."""
    return 100 * abs(ours - theirs) / abs(theirs)


def main() -> None:
    """Both sides, the table, the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("gpt2", "smollm2"), default="gpt2")
    parser.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto")
    parser.add_argument("--text", type=Path, default=TEXT)
    parser.add_argument("--steps", type=int, default=200, help="of fewer, nothing is recorded")
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--rate", type=float, default=5e-5, help="highest (default: 5e-5, the Trainer's)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="a tiny model, for a trial")
    chosen = parser.parse_args()
    folder = smollm2_folder() if chosen.model == "smollm2" else gpt2_at_init(chosen.small)
    facts = {
        "folder": str(folder),
        "text": str(chosen.text),
        "precision": chosen.precision,
        "rate": chosen.rate,
        "warmup": min(20, chosen.steps // 2),
        "threads": chosen.threads,
        "batch": 4,
        "length": 256,
        "held": 8 if chosen.small else 64,
    }
    ours, theirs = (run_of(side, chosen.steps, facts) for side in ("pophood", "transformers f32"))
    watched = [step for step in sorted(theirs["losses"]) if step % chosen.every == 0]
    table = [(step, ours["losses"][step], theirs["losses"][step]) for step in watched]
    print(f"{'step':>10}  {'pophood':>9}  {'transformers':>12}  difference")
    for step, a, b in table:
        print(f"{step:10}  {a:9.4f}  {b:12.4f}  {per_cent(a, b):9.3f} %")
    for name, a, b in zip(("before", "after"), ours["validation"], theirs["validation"], strict=True):
        print(f"{'val. ' + name:>10}  {a:9.4f}  {b:12.4f}  {per_cent(a, b):9.3f} %")
    apart = {
        "training loss": [per_cent(a, b) for _, a, b in table],
        "validation loss": [per_cent(ours["validation"][1], theirs["validation"][1])],
    }
    met = max(apart["training loss"]) <= TRAINING_BAR and max(apart["validation loss"]) <= VALIDATION_BAR
    if not chosen.small and chosen.steps >= 200:
        report(
            f"same learning: {chosen.model}, {chosen.steps} steps of 4 x 256, precision {chosen.precision},"
            f" rate {chosen.rate:g}",
            "% of transformers f32",
            apart,
            bars_met=met,
            losses=table,
            validation_before=[side["validation"][0] for side in (ours, theirs)],
            validation_after=[side["validation"][1] for side in (ours, theirs)],
            seconds=[side["seconds"] for side in (ours, theirs)],
            rate=facts["rate"],
            rows=ours["data"],
            threads=chosen.threads,
            peers=versions("torch", "transformers"),
        )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
