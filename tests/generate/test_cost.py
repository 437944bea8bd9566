"""Work per token outside the forward pass does not grow with the text: calls and memory are counted."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.generate import Run
from tests.tiny import tiny_gguf

TOKENS = 40
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "greedy": {"temperature": 0},
    "whole rows": {"top_k": 0},  # how many tokens a filter keeps varies by more than a copy of the ids
    "details": {"details": "top"},
    "penalties": {"repetition_penalty": 1.2, "frequency_penalty": 0.1},
    "stop strings": {"stop": ("\n\n", "User:")},
}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    path = tiny_gguf(tmp_path_factory.mktemp("cost") / "m.gguf", request.param, n_positions=2_048)
    model = pophood.load(path, threads=1)
    for id_ in range(model.config.vocab_size):
        model.bundle.tokenizer.token_text(id_)  # spelled out at its first use
    return model


def calls_per_token(run: Run) -> float:
    """Return how many functions, of Python and of C, a token after the first few calls: the median."""
    counts = []
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    for _ in range(4):
        next(run)
    for _ in range(TOKENS - 8):
        calls = 0
        sys.setprofile(count)
        try:
            next(run)
        finally:
            sys.setprofile(None)
        counts.append(calls)
    run.close()
    return float(np.median(counts))


def bytes_per_token(run: Run) -> int:
    """Return the most memory that one token takes at a time, in bytes."""
    most = 0
    for _ in range(4):
        next(run)
    tracemalloc.start()
    try:
        for _ in range(TOKENS - 8):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            next(run)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    run.close()
    return most


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize(("measure", "spare"), [(calls_per_token, 5), (bytes_per_token, 4_000)])
def test_a_token_costs_the_same_after_any_text(
    measure: Callable[[Run], float], spare: float, kind: str, lm: pophood.LM
) -> None:
    draw = np.random.default_rng(1)
    costs = []
    for length in (10, 1_900):
        prompt = draw.integers(3, 400, length).tolist()
        run = lm.stream(prompt, seed=1, max_tokens=TOKENS, stop_ids=(), **SETTINGS[kind])
        costs.append(measure(run))
    short, long = costs
    assert long <= short + spare, costs  # a copy of the ids takes 15,000 bytes
