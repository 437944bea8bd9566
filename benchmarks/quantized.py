"""Blocks computed as stored: decoding and prefill, in tokens/s, beside llama.cpp on the same file.

SmolLM2-135M in Q4_1 (its own file), GPT-2 small's shape in Q8_0 and Q4_0, and its F32 file at precision q8
beside llama.cpp's Q8_0. Decoding is 128 greedy tokens after a prompt of 16, and again after 800; prefill is
512 tokens. Ceiling of decoding: read bandwidth / bytes of weights. Bars (AVX-512 VNNI): Q8_0 1.4 and 3 times
llama.cpp, Q4_0 1.5 and 2.5 times, q8 of F32 1.4 and 3 times.
Run: python benchmarks/quantized.py [THREADS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _models import gpt2_gguf
from _timing import interleaved, paired_ratio, report, summary, versions

from pophood import hub
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine, read_bandwidth

ROUNDS = 5
Rate = Callable[[], float]


def engine_of(path: Path, precision: str, threads: int) -> Engine:
    """Our engine with a file."""
    opened = open_weights(path)
    engine = Engine(opened.config, precision, threads, context=min(1024, opened.config.n_positions))
    engine.load(opened.weights)
    return engine


def llama_of(path: Path, threads: int) -> Any:
    """llama.cpp with a file."""
    from llama_cpp import Llama

    return Llama(
        str(path), n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )


def ours(engine: Engine, prompt: int, steps: int) -> float:
    """Tokens/s of `steps` greedy tokens after a prompt, or of the prompt itself if there are no steps."""
    ids = [100 + i % 20_000 for i in range(prompt)]
    with engine.sequence() as sequence:
        start = time.perf_counter()
        token = int(engine.logits([(sequence, ids)])[0].argmax())
        if not steps:
            return prompt / (time.perf_counter() - start)
        start = time.perf_counter()
        for _ in range(steps):
            token = int(engine.logits([(sequence, [token])])[0].argmax())
        return steps / (time.perf_counter() - start)


def theirs(peer: Any, prompt: int, steps: int) -> float:
    """Tokens/s of llama.cpp for the same work; its tokens are given instead of chosen."""
    peer.reset()
    start = time.perf_counter()
    peer.eval([100 + i % 20_000 for i in range(prompt)])
    if not steps:
        return prompt / (time.perf_counter() - start)
    start = time.perf_counter()
    for i in range(steps):
        peer.eval([100 + i])
    return steps / (time.perf_counter() - start)


def main(threads: int = 2) -> None:
    """Time every file, interleaved with the peer."""
    smollm2 = hub.locate("smollm2").path
    files = {
        "SmolLM2 Q4_1": (smollm2, "auto", smollm2),
        "GPT-2 Q8_0": (gpt2_gguf("Q8_0"), "auto", gpt2_gguf("Q8_0")),
        "GPT-2 Q4_0": (gpt2_gguf("Q4_0"), "auto", gpt2_gguf("Q4_0")),
        "GPT-2 F32 at q8": (gpt2_gguf(), "q8", gpt2_gguf("Q8_0")),
    }
    for name, (path, precision, peers) in files.items():
        engine, peer = engine_of(path, precision, threads), llama_of(peers, threads)
        bandwidth: list[float] = []

        def ceiling(engine: Engine = engine, bandwidth: list[float] = bandwidth) -> float:
            bandwidth.append(read_bandwidth(threads, rounds=3))
            return bandwidth[-1] / engine.weight_bytes

        works: dict[str, Rate] = {"ceiling (bandwidth / weights)": ceiling}
        for work, prompt, steps in (("decode", 16, 128), ("decode at 800", 800, 128), ("prefill", 512, 0)):
            works[f"pophood {work}"] = lambda e=engine, p=prompt, s=steps: ours(e, p, s)
            works[f"llama.cpp {work}"] = lambda e=peer, p=prompt, s=steps: theirs(e, p, s)
        figures = interleaved(works, ROUNDS)
        ratios = {
            work: paired_ratio(figures, f"pophood {work}", f"llama.cpp {work}")
            for work in ("decode", "decode at 800", "prefill")
        }
        report(
            f"{name} beside llama.cpp",
            "tokens/s",
            figures,
            threads=threads,
            isa=engine.isa,
            bandwidth_gb_per_s=round(summary(bandwidth)["median"] / 1e9, 1),
            times_llama_cpp=ratios,
            share_of_ceiling=paired_ratio(figures, "pophood decode", "ceiling (bandwidth / weights)"),
            peers=versions("llama-cpp-python"),
        )
        peer.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
