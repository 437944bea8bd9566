"""Choosing a token: microseconds per token of several chains, and of the loop around them, beside llama.cpp.

Ceiling: reading the row of logits once (its maximum). Bars: vocabulary 50,257 and top_k 40 under 100 us;
vocabulary 151,936 and every step under 1,000 us. A row has thirty likely tokens and a tail, as text has.
llama.cpp's figure includes copying the row into its candidates, which its `llama_sampler_sample` does, too.
Run: python benchmarks/sampling.py
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _timing import Work, interleaved, report, versions

sys.path.insert(0, str(Path(__file__).parent.parent))

from pophood.generate import GenerateSettings, generate
from pophood.sampling import SamplingSettings, chain
from pophood.sampling.softmax import Floats
from tests.generate.mock import MockDecoder, MockTokenizer
from tests.sampling import llama_samplers as llama

ROUNDS = 9
TOKENS = 100
HISTORY = np.random.default_rng(1).integers(0, 50_000, 1_000).tolist()
EVERYTHING: dict[str, Any] = {
    "repetition_penalty": 1.1,
    "dry_multiplier": 0.8,
    "typical_p": 0.95,
    "top_p": 0.95,
    "min_p": 0.02,
    "xtc_probability": 0.5,
}
CHAINS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "top_k 40 (the default)": {},
    "temperature only": {"top_k": 0},
    "top_p 0.95 only": {"top_k": 0, "top_p": 0.95},
    "min_p 0.05 only": {"top_k": 0, "min_p": 0.05},
    "every step": EVERYTHING,
}


def row_of(size: int) -> Floats:
    """Logits as text has them: a tail, and a few tokens well above it."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(size, dtype=np.float32) * np.float32(3)
    logits[rng.integers(0, size, 30)] += 12
    return logits


def best(work: Callable[[int], object]) -> Work:
    """Microseconds of one call, the median of a hundred: what other programs take stays out."""

    def run() -> float:
        seconds = []
        for number in range(TOKENS):
            start = time.perf_counter()
            work(number)
            seconds.append(time.perf_counter() - start)
        return float(np.median(seconds)) * 1e6

    return run


def ours(size: int, values: dict[str, Any]) -> Work:
    """One choice of pophood's chain."""
    logits, chosen = row_of(size), chain(SamplingSettings(**values))
    return best(lambda number: chosen.choose(logits, HISTORY, seed=1, sample=0, position=number))


def theirs(size: int) -> Work:
    """llama.cpp's chain of top_k 40, temperature 0.8 and its draw."""
    api = llama.llama_cpp
    logits = row_of(size)
    sampler = llama.chain(llama.top_k(40), llama.temperature(0.8), api.llama_sampler_init_dist(1))
    data = np.zeros(size, dtype=llama.TOKEN_DATA)
    ids = np.arange(size, dtype=np.int32)
    pointer = ctypes.cast(data.ctypes.data, ctypes.POINTER(api.llama_token_data))

    def choose(_: int) -> None:
        data["id"], data["logit"] = ids, logits
        row = api.llama_token_data_array(pointer, size, -1, False)
        api.llama_sampler_apply(sampler, ctypes.byref(row))

    return best(choose)


class Constant(MockDecoder):
    """A decoder that takes no time: what is left is the loop."""

    def logits(self, batch: Any, cancel: Any = None) -> Any:
        for sequence, ids in batch:
            self.sequences[sequence].extend(ids)
        return np.broadcast_to(self.row, (len(batch), len(self.row)))


def loop(size: int, **values: Any) -> Work:
    """Microseconds per token of a whole run without a model."""
    decoder = Constant(vocab_size=size, context=2_048)
    decoder.row = row_of(size)
    tokenizer: Any = MockTokenizer([b" word"] * size)

    def run() -> float:
        settings = GenerateSettings(seed=1, max_tokens=TOKENS, **values)
        start = time.perf_counter()
        count = sum(1 for _ in generate(decoder, tokenizer, HISTORY, settings))
        return (time.perf_counter() - start) / count * 1e6

    return run


def main() -> None:
    """Time all of it, interleaved."""
    works: dict[str, Work] = {}
    for size in (50_257, 151_936):
        logits = row_of(size)
        works[f"{size:,} ceiling: maximum of the row"] = best(lambda _, row=logits: row.max())  # type: ignore[misc]
        works |= {f"{size:,} {name}": ours(size, values) for name, values in CHAINS.items()}
        works[f"{size:,} llama.cpp top_k 40"] = theirs(size)
    works["50,257 loop, plain"] = loop(50_257)
    works["50,257 loop, stop strings"] = loop(50_257, stop=("\n\n", "User:"))
    works["50,257 loop, details top 10"] = loop(50_257, details="top")
    figures = interleaved(works, ROUNDS)
    report(
        "choosing a token",
        "us per token",
        figures,
        bar="50,257 top_k 40 under 100 us; 151,936 every step under 1,000 us",
        peers=versions("llama-cpp-python"),
    )


if __name__ == "__main__":
    main()
