"""A trace of 512 tokens, GPT-2 small, f32, all taps but scores, pattern, result and logits.

Ceiling: our own prefill without output, and the time to write as much fresh memory as the trace holds.
Bars: at most 1.3 times that prefill; at most 1/2 of the time and 1/2 of the peak memory of TransformerLens'
`run_with_cache` restricted to the same points (aim: 1/4), as it comes: its own loading, gradient on. Beside
it stand the same with the gradient off, and with the leanest loading that there is.
Memory is that of a process of its own, from its start to its first whole trace: anonymous resident memory,
looked at every 2 milliseconds, so that mapped files do not count; the whole resident peak stands beside it.
The arrays that are kept take as much in both, so the memory of the trace alone is told too.
Run: python benchmarks/trace.py --lens PYTHON   (a Python that has transformer_lens 3.9.0: docs/taps.md)
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import _timing
import numpy as np
from _models import gpt2_folder
from _timing import interleaved, paired_ratio, report, timed
from _trace_worker import LEFT_OUT, THREADS, back_memory, prompt

import pophood

WORKER = Path(__file__).with_name("_trace_worker.py")
WAYS = {  # of loading TransformerLens, and torch's gradient
    "TransformerLens": ("usual", "on"),
    "TransformerLens, no gradient": ("usual", "off"),
    "TransformerLens, mapped, no gradient": ("mapped", "off"),
}


class Worker:
    """A child process that traces when told to; with `watched`, its memory is looked at all the while."""

    def __init__(self, python: str, way: str, gradient: str, tokens: int, watched: bool = False) -> None:
        command = [python, str(WORKER), way, str(gpt2_folder()), str(tokens), gradient]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.anonymous = self.resident = 0  # peaks
        self.watched, self._done = watched, threading.Event()
        if watched:
            threading.Thread(target=self._watch, daemon=True).start()
        self._answer()
        self.loading = self.anonymous
        self.anonymous = self.loaded = self._now()["RssAnon"]

    def trace(self) -> float:
        """Seconds of one trace, as the child measured them."""
        assert self.process.stdin is not None
        time.sleep(0.1)  # the others' threads go to sleep
        self.process.stdin.write("watched\n" if self.watched else "timed\n")
        self.process.stdin.flush()
        return float(self._answer()["seconds"])

    def close(self) -> None:
        """End the child."""
        self._done.set()
        self.process.communicate(timeout=60)

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, float] = json.loads(line)
                return answer
        raise SystemExit(f"the worker {self.process.args} ended with {self.process.wait()}")

    def _now(self) -> dict[str, int]:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return {name: int(kib) << 10 for name, kib in re.findall(r"^(RssAnon|VmHWM):\s+(\d+)", text, re.M)}

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            try:
                now = self._now()
            except OSError:
                return
            self.anonymous = max(self.anonymous, now.get("RssAnon", 0))
            self.resident = max(self.resident, now.get("VmHWM", 0))


def against_prefill(tokens: int, rounds: int) -> None:
    """Bar: 1.3 times the plain prefill."""
    lm = pophood.load(gpt2_folder(), threads=THREADS)
    ids, taps = prompt(tokens), ("*", *(f"!{name}" for name in LEFT_OUT))
    plan = lm.plan_trace(ids, taps)

    def prefill() -> float:
        back_memory()
        with lm.engine.sequence() as sequence:
            return timed(lambda: lm.engine.forward([(sequence, ids)], output="none"))

    def traced() -> float:
        back_memory()
        return timed(lambda: lm.trace(ids, taps))

    works = {
        "prefill, no output": prefill,
        "trace": traced,
        "writing as much fresh memory": lambda: timed(lambda: np.full(plan.nbytes // 4, 1.0, np.float32)),
    }
    figures = interleaved(works, rounds)
    figures["ceiling: prefill + writing"] = [
        a + b for a, b in zip(figures["prefill, no output"], figures[list(works)[2]], strict=True)
    ]
    report(
        f"trace of {tokens} tokens against prefill, GPT-2 small f32",
        "seconds",
        figures,
        threads=THREADS,
        isa=lm.engine.isa,
        held=plan.describe(),
        times_prefill=paired_ratio(figures, "trace", "prefill, no output"),
        times_ceiling=paired_ratio(figures, "trace", "ceiling: prefill + writing"),
        bar="1.3 times the prefill",
    )


def against_lens(python: str, tokens: int, rounds: int) -> None:
    """Bars: half the time, half the memory."""
    workers = {"pophood": Worker(sys.executable, "ours", "off", tokens)}
    workers |= {name: Worker(python, *way, tokens) for name, way in WAYS.items()}
    figures = interleaved({name: worker.trace for name, worker in workers.items()}, rounds)
    for worker in workers.values():
        worker.close()
    memory = {}
    for name, (executable, way) in {
        "pophood": (sys.executable, ("ours", "off")),
        **{name: (python, way) for name, way in WAYS.items()},
    }.items():
        worker = Worker(executable, *way, tokens, watched=True)
        worker.trace()
        worker.close()
        memory[name] = {
            "peak": max(worker.loading, worker.anonymous) >> 20,
            "while loading": worker.loading >> 20,
            "loaded": worker.loaded >> 20,
            "of the trace alone": (worker.anonymous - worker.loaded) >> 20,
            "peak with mapped files": worker.resident >> 20,
        }
    for name, facts in memory.items():
        print(f"  {name:38} MiB: {facts}")
    ours = memory["pophood"]["peak"]
    report(
        f"trace of {tokens} tokens against TransformerLens, GPT-2 small f32",
        "seconds",
        figures,
        threads=THREADS,
        memory_mib=memory,
        times_lens={name: paired_ratio(figures, "pophood", name) for name in WAYS},
        memory_of_lens={name: round(ours / memory[name]["peak"], 3) for name in WAYS},
        bar="1/2 of the time, 1/2 of the memory",
        peers=peers(python),
    )


def peers(python: str) -> dict[str, str]:
    """Versions in the other environment."""
    names = ("transformer-lens", "torch", "transformers")
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {names}}}))"
    found: dict[str, str] = json.loads(subprocess.check_output([python, "-c", code], text=True))
    return found


def main() -> None:
    """Both comparisons, or the first alone without a Python that has TransformerLens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lens", metavar="PYTHON", help="the other environment's Python")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--try", dest="attempt", action="store_true", help="keep no result")
    chosen = parser.parse_args()
    if chosen.attempt:
        _timing.RESULTS = Path(tempfile.mkdtemp())
    against_prefill(chosen.tokens, chosen.rounds)
    if chosen.lens:
        against_lens(chosen.lens, chosen.tokens, chosen.rounds)
    else:
        print("no --lens PYTHON: TransformerLens was not timed")


if __name__ == "__main__":
    main()
