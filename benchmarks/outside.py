"""Time of a generated token outside the forward pass, in milliseconds, at two sizes of vocabulary.

Each token through `LM.stream` with top-k 40 and temperature 0.8, its text included, less the time that the
C++ engine's passes took in the same run. The models are one narrow block with the vocabulary sizes of GPT-2
(50,257) and Qwen2 (151,936). Bars: 0.25 and 0.4 ms. Ceiling: reading a row of logits once (its maximum).
Run: python benchmarks/outside.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _models import KEPT
from _timing import Work, interleaved, judged, report, summary

import pophood
from tests.tiny import tiny_gguf

TOKENS = 256
MODELS = {"gpt2": (50_257, 0.25, 0.1), "qwen2": (151_936, 0.4, 0.2)}  # vocabulary, bar, aim in ms


class Timed:
    """A native engine whose forward passes are timed; everything else is the engine's own."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Compute a pass."""
        begin = time.perf_counter()
        try:
            return self._engine.forward(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - begin


def model(family: str, vocabulary: int) -> Path:
    """A model of one block."""
    path = KEPT / f"narrow-{vocabulary}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"vocab_size": vocabulary, "n_layer": 1, "n_positions": 512}
        tiny_gguf(path, family, seed=5, quantised=None, **shape)
    return path


def outside(lm: Any, engine: Timed, **settings: Any) -> float:
    """Milliseconds per token of one run, without the engine's."""
    prompt = lm.tokenize("The capital of Spain is")
    run = lm.stream(prompt, max_tokens=TOKENS + 1, stop_ids=(), seed=1, **settings)
    next(run)
    engine.seconds, begin = 0.0, time.perf_counter()
    count = sum(1 for _ in run)
    seconds = time.perf_counter() - begin
    assert count == TOKENS and 0 < engine.seconds < seconds
    return (seconds - engine.seconds) / count * 1e3


def ceiling(vocabulary: int) -> float:
    """Milliseconds to read a row of logits once."""
    row = np.random.default_rng(0).standard_normal(vocabulary, np.float32)
    begin = time.perf_counter()
    for _ in range(TOKENS):
        row.max()
    return (time.perf_counter() - begin) / TOKENS * 1e3


def main() -> None:
    """Time both vocabularies, interleaved."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    works: dict[str, Work] = {}
    for family, (vocabulary, _, _) in MODELS.items():
        lm = pophood.load(model(family, vocabulary))
        engine = Timed(lm.engine._native)
        lm.engine._native = engine  # type: ignore[assignment]
        works[f"{vocabulary:,}: top-k 40, temperature 0.8"] = partial(
            outside, lm, engine, top_k=40, temperature=0.8
        )
        works[f"{vocabulary:,}: greedy"] = partial(outside, lm, engine, temperature=0)
        works[f"{vocabulary:,}: maximum of a row"] = partial(ceiling, vocabulary)
    figures = interleaved(works, options.rounds)
    bars = {
        f"outside forward, vocabulary {vocabulary:,}, ms per token": judged(
            summary(figures[f"{vocabulary:,}: top-k 40, temperature 0.8"]), bar, aim, most=True
        )
        for vocabulary, bar, aim in MODELS.values()
    }
    report("outside the forward pass", "ms per token", figures, bars=bars)


if __name__ == "__main__":
    main()
