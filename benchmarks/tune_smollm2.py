"""SmolLM2 by LoRA on the seed tasks: seconds to the loss that PEFT in float32 reaches in one epoch.

155 of the 175 seed tasks of Self-Instruct are learned from, 20 are held out; loss on answers alone, tasks cut
at 256 positions as `pophood tune` does, LoRA of rank 8 and alpha 16 on all linear layers in both. The peer:
batches of 4 tasks padded to their longest, a linear schedule over one epoch. pophood: its own batches of 4
packed rows, warm-up and cosine, over two epochs. Each side has the best learning rate of the same three
(`--choose` runs them all, on a seed of its own): the peer that with the lowest loss, pophood the soonest.
The measure is the mean loss over the learned tokens of the held-out tasks, in float32, from the same ids on
both sides, which must find the same before step 1; PEFT measures pophood's adapter from the disk once more.
Seconds are those of the steps; loading and evaluating count on neither side. Runs alternate.
Bar: pophood comes to the peer's lowest validation loss 3 times sooner than the peer (aim: 6).
Ceiling: a third of the peer's positions are padding (1.5 times); the rest is the speed of a step (tune.py).
Run: python benchmarks/tune_smollm2.py [--rounds 5] [--choose]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from _sides import Side, smollm2_folder
from _timing import report, summary, versions

LENGTH = 256
RATES = (5e-4, 1e-3, 2e-3)
BAR = 3.0


class Benchmark:
    """Both sides, and the runs that were asked for."""

    def __init__(self, chosen: argparse.Namespace, folder: Path) -> None:
        facts = {"folder": str(smollm2_folder()), "length": LENGTH, "threads": chosen.threads}
        self.chosen, self.folder = chosen, folder
        self.ours = Side("_smollm2_worker.py", side="pophood", **facts)
        self.theirs = Side("_smollm2_worker.py", side="peft", **facts)
        same, tasks = self.theirs.ready["same_ids"]
        print(
            f"transformers' tokenizer and the exported chat template give the same ids in {same} of {tasks}"
        )

    def peer(self, seed: int, rate: float) -> list[list[float]]:
        """The peer's epoch: steps, seconds, validation loss."""
        chosen = self.chosen
        said = self.theirs.ask(seed=seed, rate=rate, batch=4, epochs=1, every=chosen.every, most=chosen.most)
        return _shown("PEFT f32", seed, rate, said["curve"])

    def pophood(self, seed: int, rate: float, until: float) -> tuple[list[list[float]], float]:
        """pophood's run until it is as good, and the peer's measure of its adapter."""
        to = str(self.folder / f"adapter-{seed}-{rate:g}")
        chosen = self.chosen
        said = self.ours.ask(
            seed=seed, rate=rate, batch=chosen.batch, epochs=chosen.epochs, every=1, until=until, to=to
        )
        checked = self.theirs.ask(check=to)["loss"]
        curve = _shown("pophood", seed, rate, said["curve"])
        print(f"  measured by PEFT from the disk: {checked:.4f}")
        return curve, checked

    def end(self) -> None:
        """No more runs."""
        self.ours.end()
        self.theirs.end()


def _shown(side: str, seed: int, rate: float, curve: list[list[float]]) -> list[list[float]]:
    points = ", ".join(f"{int(step)}: {loss:.4f} ({seconds:.1f} s)" for step, seconds, loss in curve)
    print(f"{side}, seed {seed}, rate {rate:g}: {points}", flush=True)
    return curve


def lowest(curve: list[list[float]]) -> list[float]:
    """The point with the lowest loss."""
    return min(curve, key=lambda point: point[2])


def choose(benchmark: Benchmark) -> None:
    """The best rate of each side, on a seed of its own: the peer's lowest loss, pophood's soonest."""
    best = min((lowest(benchmark.peer(1000, rate))[2], rate) for rate in RATES)
    print(f"the peer's best rate: {best[1]:g}")
    for rate in RATES:
        benchmark.pophood(1000, rate, best[0])


def main() -> None:
    """The rounds and the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-3, help="pophood's")
    parser.add_argument("--batch", type=int, default=4, help="pophood's rows")
    parser.add_argument("--epochs", type=float, default=2.0, help="of pophood's schedule")
    parser.add_argument("--their-rate", type=float, default=2e-3)
    parser.add_argument("--every", type=int, default=4, help="the peer's steps from evaluation to evaluation")
    parser.add_argument("--most", type=int, help="end the peer after so many steps, and record nothing")
    parser.add_argument("--choose", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(chosen, Path(folder))
        if chosen.choose:
            choose(benchmark)
        else:
            measure(benchmark, chosen)
        benchmark.end()


def measure(benchmark: Benchmark, chosen: argparse.Namespace) -> None:
    """Runs in turn, and what came of them."""
    figures: dict[str, list[float]] = {"PEFT f32": [], "pophood": []}
    facts: dict[str, list[Any]] = {"losses": [], "steps": [], "before": [], "checked": []}
    times: list[float] = []
    for seed in range(chosen.rounds):
        theirs = benchmark.peer(seed, chosen.their_rate)
        goal = lowest(theirs)
        ours, checked = benchmark.pophood(seed, chosen.rate, goal[2])
        before = [ours[0][2], theirs[0][2]]
        if abs(before[0] - before[1]) > 0.001 * before[1]:
            sys.exit(f"the sides do not measure the same: before step 1 they find {before}")
        times.append(goal[1] / ours[-1][1] if ours[-1][2] <= goal[2] else 0.0)  # 0: it never came to it
        figures["PEFT f32"].append(goal[1])
        figures["pophood"].append(ours[-1][1])
        facts["losses"].append([ours[-1][2], goal[2]])
        facts["steps"].append([ours[-1][0], goal[0]])
        facts["before"].append(before)
        facts["checked"].append(checked)
    sooner = summary(times)
    print(f"sooner: {sooner}")
    if chosen.most is not None:
        return
    report(
        "tune smollm2: LoRA r=8, seconds to PEFT's lowest validation loss of one epoch, 155 seed tasks",
        "seconds",
        figures,
        sooner=sooner,
        bar=BAR,
        bar_met=sooner["median"] >= BAR,
        rates=[chosen.rate, chosen.their_rate],
        rows=chosen.batch,
        threads=chosen.threads,
        same_ids=benchmark.theirs.ready["same_ids"],
        peers=versions("torch", "transformers", "peft"),
        **facts,
    )


if __name__ == "__main__":
    main()
