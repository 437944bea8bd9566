"""Attention windows at depth: Gemma 3 270M's shape with random weights, q4, keys and values in f16.

Time per token after 32,000 positions against that after 500, interleaved, and the memory of keys and values
at the end of a context of 32,768 against its plan. Keys and values of earlier positions are made up, not
computed.
Run: python benchmarks/windows.py [--rounds 7] [--threads 2] [--no-amx]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
from _amx import add_no_amx
from _models import GEMMA3_270M
from _timing import interleaved, judged, paired_ratio, report, summary
from numpy.typing import NDArray

from pophood.config import ModelConfig, tensor_shapes
from pophood.families import config_from_hf
from pophood.model.call import KvState
from pophood.model.engine import Engine, read_bandwidth
from pophood.model.memory import MemoryPlan

SHALLOW, DEEP, STEPS = 500, 32_000, 48
TIME = (1.5, 1.42)  # bar, and what reading everything once takes
MEMORY = (0.02, 0.0)


class RandomWeights:
    """Matrices of small random values, gains of 1."""

    def __init__(self, config: ModelConfig) -> None:
        self._shapes = tensor_shapes(config)

    def stored_type(self, name: str) -> str:
        """Return the type of a tensor."""
        return "F32"

    def stored(self, name: str) -> tuple[str, NDArray[np.float32]]:
        """Return the values of a tensor."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return "F32", np.ones(shape, np.float32)
        draw = np.random.default_rng(math.prod(shape))
        return "F32", 0.02 * draw.standard_normal(shape, np.float32)


def opened(threads: int) -> tuple[Engine, MemoryPlan]:
    """Return the engine and its plan."""
    config = config_from_hf(GEMMA3_270M)
    engine = Engine(config, "q4", threads, kv="f16")
    weights = RandomWeights(config)
    plan = engine.settle(weights)
    engine.load(weights)
    return engine, plan


def made_up(engine: Engine, positions: int) -> int:
    """Return a sequence with so many positions of random keys and values."""
    sequence = engine.new_sequence()
    tokens = np.zeros(512, np.int32)
    for first in range(0, positions, 512):
        count = min(512, positions - first)
        halves = np.random.default_rng(first).standard_normal(count * engine.position_bytes // 2, np.float32)
        data = halves.astype(np.float16).view(np.uint8)
        engine.append_kv(sequence, KvState(engine.kv_geometry, count, data, first, first, tokens[:count]))
    return sequence


def after(engine: Engine, sequence: int) -> Callable[[], float]:
    """Return a work: milliseconds of a token after a sequence."""

    def work() -> float:
        copy = engine.fork(sequence)
        engine.summary([(copy, [7])], k=1)
        begin = time.perf_counter()
        for token in range(STEPS):
            engine.summary([(copy, [token])], k=1)
        seconds = time.perf_counter() - begin
        engine.drop(copy)
        return 1e3 * seconds / STEPS

    return work


def main() -> None:
    """Time both depths and count the memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    add_no_amx(parser)
    options = parser.parse_args()
    engine, plan = opened(options.threads)
    whole = made_up(engine, engine.context - 1024)
    engine.forward([(whole, [i % 997 for i in range(1024)])], output="none")
    apart = abs(engine.cache_bytes / plan.cache(engine.context) - 1)
    engine.drop(whole)
    works = {
        "read bandwidth (GB/s)": lambda: read_bandwidth(options.threads, rounds=5) / 1e9,
        f"ms at {SHALLOW:,}": after(engine, made_up(engine, SHALLOW)),
        f"ms at {DEEP:,}": after(engine, made_up(engine, DEEP)),
    }
    figures = interleaved(works, options.rounds)
    ratio = paired_ratio(figures, f"ms at {DEEP:,}", f"ms at {SHALLOW:,}")
    full, bandwidth = plan.cache_per_position - plan.windowed_per_position, figures["read bandwidth (GB/s)"]
    extra = (DEEP - SHALLOW) * full / summary(bandwidth)["median"]
    report(
        "attention windows at depth, Gemma 3 270M's shape",
        "ms",
        figures,
        bars={
            f"time per token at {DEEP:,} / at {SHALLOW:,}": judged(ratio, *TIME, most=True),
            "memory of keys and values, apart from the plan": judged(summary([apart]), *MEMORY, most=True),
        },
        threads=options.threads,
        isa=engine.isa,
        ceiling_extra_ms=round(extra / 1e6, 2),
    )


if __name__ == "__main__":
    main()
