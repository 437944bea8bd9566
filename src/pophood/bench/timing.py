"""The work that is timed: one kind of work on a loaded model, and a new process up to its tenth token.

Prompts are random token ids, so that nothing has to be read and no stop token ends a text early.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pophood.bench.settings import Work
from pophood.errors import PophoodError
from pophood.generate import generate
from pophood.generate.prefix import PrefixCache
from pophood.generate.settings import GenerateSettings
from pophood.model.engine import CancelFlag
from pophood.model.lm import LM
from pophood.sampling import SamplingSettings

PACKAGES = Path(__file__).resolve().parents[2]
STARTING = ("The capital of Spain is", "--greedy", "--max-tokens", "10")
# `python -m pophood`, which at its end writes the memory that it took as the last word on stderr. Its first
# argument is the folder of this package; with -P, no module in the working folder takes the place of another.
PROGRAM = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
try:
    runpy.run_module("pophood", run_name="__main__", alter_sys=True)
finally:
    from pophood.system import peak_memory
    sys.stderr.write(f"\\n{peak_memory()}")
"""


@dataclass
class Timer:
    """Times works on one model. What stands before the generated tokens is computed once and kept."""

    lm: LM
    cancel: CancelFlag | None = None
    _prefixes: dict[tuple[int, int], PrefixCache] = field(default_factory=dict)

    def rate(self, work: Work) -> float:
        """Do a work once and return its tokens per second, of all sequences together."""
        self.lm.engine.use_threads(work.threads)
        return self._prefill(work) if work.kind == "prefill" else self._decode(work)

    def _prefill(self, work: Work) -> float:
        ids = self._ids(work.tokens)
        with self.lm.engine.sequence() as sequence:
            start = time.perf_counter()
            self.lm.engine.logits([(sequence, ids)], self.cancel)
            return work.tokens / (time.perf_counter() - start)

    def _decode(self, work: Work) -> float:
        """Generate with the loop that `LM.stream` has; the first token of each sequence ends the prompt."""
        engine, tokenizer = self.lm.engine, self.lm.bundle.tokenizer
        prefix = self._prefixes.setdefault((work.depth, work.batch), PrefixCache(engine))
        settings = GenerateSettings(
            sampling=SamplingSettings(temperature=0.0),
            max_tokens=work.tokens + 1,
            samples=work.batch,
            stop_ids=(),
        )
        ids = self._ids(max(1, work.depth))
        with generate(engine, tokenizer, ids, settings, prefix, self.cancel) as run:
            for _ in range(work.batch):
                next(run)
            start = time.perf_counter()
            made = sum(1 for _ in run)
            return made / (time.perf_counter() - start)

    def close(self) -> None:
        """Drop the sequences that were kept."""
        for prefix in self._prefixes.values():
            prefix.forget()

    def _ids(self, n: int) -> list[int]:
        random = np.random.default_rng(0)
        return [int(id_) for id_ in random.integers(0, self.lm.config.vocab_size, n)]


@dataclass(frozen=True, slots=True)
class ProcessRun:
    """One new process: the seconds until it had ended, and the most memory that it took, in bytes."""

    seconds: float
    peak_memory: int


def start_command(lm: LM, threads: int) -> list[str] | None:
    """Return the arguments of `pophood` that generate ten tokens with a model as it is loaded.

    None if an adapter is not on the disk.
    """
    engine = lm.engine
    words = ["run", "-m", str(lm.path), "--precision", engine.precision, "--kv", engine.kv]
    words += ["--context", str(engine.context), "--threads", str(threads)]
    for place, scale in lm.adapter_places:
        if not Path(place).exists():
            return None
        words += ["--adapter", f"{place}:{scale!r}"]
    return [*words, *STARTING[1:], "--", STARTING[0]]


def run_process(arguments: list[str]) -> ProcessRun:
    """Run `pophood` in a new process; raises PophoodError with its last words if it fails."""
    environment = os.environ | {"POPHOOD_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(PACKAGES), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
        errors="replace",
    )
    try:
        _, said = process.communicate()
    finally:  # Ctrl-C and every other error
        if process.poll() is None:
            process.kill()
            process.wait()
    seconds = time.perf_counter() - start
    lines = [line for line in said.splitlines() if line.strip()]
    if process.returncode != 0 or not lines or not lines[-1].isdigit():
        words = next((line for line in reversed(lines) if not line.isdigit()), f"exit {process.returncode}")
        raise PophoodError(f"`pophood run` in a new process failed (`--no-start` leaves it out): {words}")
    return ProcessRun(seconds, int(lines[-1]))
