"""Decoding one sequence, GPT-2 small, f32: tokens/s beside llama.cpp on the same file.

Ceiling: every weight is read once per token, so bandwidth / bytes of weights. Bar: 0.9 times llama.cpp F32.
Run: python benchmarks/decode.py
"""

from __future__ import annotations

import time
from typing import Any

from _models import gpt2_gguf
from _timing import interleaved, paired_ratio, report, summary, versions

from pophood.model.bundle import open_weights
from pophood.model.engine import Engine, read_bandwidth

PROMPT = list(range(100, 116))
STEPS = 64
ROUNDS = 5


def pophood_engine(threads: int) -> Engine:
    """Our engine with the benchmark's model."""
    opened = open_weights(gpt2_gguf())
    engine = Engine(opened.config, threads=threads)
    engine.load(opened.weights)
    return engine


def llama_model(threads: int) -> Any:
    """llama.cpp with the same file."""
    from llama_cpp import Llama

    return Llama(
        str(gpt2_gguf()), n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )


def main(threads: int = 2) -> None:
    """Time both, interleaved."""
    engine, peer = pophood_engine(threads), llama_model(threads)

    def ours() -> float:
        with engine.sequence() as sequence:
            token = int(engine.logits([(sequence, PROMPT)])[0].argmax())
            start = time.perf_counter()
            for _ in range(STEPS):
                token = int(engine.logits([(sequence, [token])])[0].argmax())
            return STEPS / (time.perf_counter() - start)

    def theirs() -> float:
        peer.reset()
        peer.eval(PROMPT)
        start = time.perf_counter()
        for i in range(STEPS):
            peer.eval([100 + i])
        return STEPS / (time.perf_counter() - start)

    bandwidth: list[float] = []

    def ceiling() -> float:
        bandwidth.append(read_bandwidth(threads, rounds=10))
        return bandwidth[-1] / engine.weight_bytes

    works = {"pophood f32": ours, "llama.cpp F32": theirs, "ceiling (bandwidth / weights)": ceiling}
    figures = interleaved(works, ROUNDS)
    report(
        "decode f32, GPT-2 small",
        "tokens/s",
        figures,
        threads=threads,
        isa=engine.isa,
        bandwidth_gb_per_s=round(summary(bandwidth)["median"] / 1e9, 1),
        times_llama_cpp=paired_ratio(figures, "pophood f32", "llama.cpp F32"),
        share_of_ceiling=paired_ratio(figures, "pophood f32", "ceiling (bandwidth / weights)"),
        bar="0.9 times llama.cpp",
        peers=versions("llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
