"""Agreement with llama.cpp's samplers and transformers' logits processors on random rows."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.sampling import SamplingSettings, breakers_of, chain
from pophood.sampling.softmax import Floats
from tests.sampling import llama_samplers as llama

ROWS = [(seed, size, scale) for seed in range(3) for size, scale in ((50, 2.0), (3_000, 3.0), (50_257, 1.0))]


def row_of(seed: int, size: int, scale: float) -> Floats:
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)


def left_by(logits: Floats, history: list[int] | None = None, **values: Any) -> dict[int, float]:
    """Return the logits by token that pophood's chain leaves; all steps but the named ones are off."""
    settings = SamplingSettings(**{"top_k": 0, "temperature": 1.0, **values})
    left = chain(settings).candidates(logits, history or [])
    ids = range(len(logits)) if left.ids is None else left.ids.tolist()
    return dict(zip(ids, left.logits.tolist(), strict=True))


def assert_alike(ours: dict[int, float], theirs: dict[int, float], near_border: float = 0.0) -> None:
    """Assert equal tokens and logits; `near_border` is the share of tokens that rounding may change."""
    differing = ours.keys() ^ theirs.keys()
    assert len(differing) <= near_border * max(len(theirs), 1_000)
    shared = sorted(ours.keys() & theirs.keys())
    np.testing.assert_allclose([ours[i] for i in shared], [theirs[i] for i in shared], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("seed", "size", "scale"), ROWS)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
def test_llama_cpp_filters(seed: int, size: int, scale: float, part: float) -> None:
    logits = row_of(seed, size, scale)
    k = max(1, int(part * 100))
    assert_alike(left_by(logits, top_k=k), llama.apply(llama.top_k(k), logits))
    assert_alike(left_by(logits, min_p=part), llama.apply(llama.min_p(part), logits))
    # llama.cpp adds up to 50,000 probabilities one by one in float32, which moves the border a little
    assert_alike(left_by(logits, top_p=part), llama.apply(llama.top_p(part), logits), near_border=5e-3)
    assert_alike(left_by(logits, typical_p=part), llama.apply(llama.typical(part), logits), near_border=5e-3)


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(10))
def test_llama_cpp_xtc_when_it_acts(seed: int, threshold: float) -> None:
    logits = row_of(seed, 200, 3.0)
    ours = left_by(logits, xtc_probability=1.0, xtc_threshold=threshold)
    theirs = llama.apply(llama.xtc(threshold), logits)
    assert_alike(ours, theirs)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.5])
def test_llama_cpp_temperature_and_bias(temperature: float) -> None:
    logits = row_of(1, 500, 3.0)
    assert_alike(
        left_by(logits, temperature=temperature), llama.apply(llama.temperature(temperature), logits)
    )
    bias = {3: 1.5, 499: -2.0, 7: -math.inf}
    assert_alike(left_by(logits, logit_bias=bias), llama.apply(llama.logit_bias(500, bias), logits))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("window", [1, 8, 64, 1_000])
def test_llama_cpp_penalties(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    logits = row_of(seed, 100, 3.0)
    history = rng.integers(0, 60, 200).tolist()
    repetition, frequency, presence = (
        float(rng.uniform(0.5, 2)),
        float(rng.uniform(-1, 1)),
        float(rng.uniform(-1, 1)),
    )
    ours = left_by(
        logits,
        history,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        penalty_window=window,
    )
    assert_alike(
        ours, llama.apply(llama.penalties(100, window, repetition, frequency, presence), logits, history)
    )


def repeating(seed: int, tokens: int, length: int) -> list[int]:
    """Draw a history with long repeats: pieces of it are copied to its end."""
    rng = np.random.default_rng(seed)
    history = rng.integers(0, tokens, 20).tolist()
    while len(history) < length:
        start = int(rng.integers(0, len(history)))
        history += history[start : start + int(rng.integers(1, 12))]
        history += rng.integers(0, tokens, int(rng.integers(0, 2))).tolist()
    return [int(token) for token in history[:length]]


@pytest.mark.parametrize("window", [10, 64, 400])
def test_llama_cpp_dry_without_breakers(window: int) -> None:
    penalised = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        tokens = int(rng.choice([2, 5, 30]))
        history = repeating(seed, tokens, int(rng.choice([5, 100, 300])))
        base, allowed = float(rng.choice([1.0, 1.1, 1.75, 4.0])), int(rng.integers(1, 5))
        logits = row_of(seed, tokens, 3.0)
        values = {
            "dry_multiplier": 0.8,
            "dry_base": base,
            "dry_allowed_length": allowed,
            "dry_window": window,
        }
        ours = left_by(logits, history, **values)
        theirs = llama.apply(llama.dry(None, 0.8, base, allowed, window, []), logits, history)
        # base ** 158 is near the largest float32; pophood stops at 1e30
        assert_alike(
            {i: max(x, -1e29) for i, x in ours.items()}, {i: max(x, -1e29) for i, x in theirs.items()}
        )
        penalised += any(ours[i] != logits[i] for i in ours)
    assert penalised >= 15


@pytest.fixture(scope="module")
def vocabulary(smollm2: Path) -> Iterator[llama.Vocabulary]:
    """Open the vocabulary of the small real model with llama.cpp."""
    opened = llama.Vocabulary(str(smollm2))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pieces(vocabulary: llama.Vocabulary) -> list[bytes]:
    """Return the bytes of every token, by llama.cpp."""
    return vocabulary.pieces()


@pytest.mark.parametrize("breakers", [["\n", ":", '"', "*"], [" the", "END"], ["and then"]])
def test_llama_cpp_dry_with_breakers(
    vocabulary: llama.Vocabulary, pieces: list[bytes], breakers: list[str]
) -> None:
    found = breakers_of(breakers, pieces, vocabulary.encode)
    assert len(found) >= len(breakers)
    words = "one two: three four\nfive six and then seven the end END eight one two"
    rng = np.random.default_rng(5)
    logits = np.zeros(len(pieces), dtype=np.float32)
    penalised = 0
    for _ in range(8):
        order = rng.permutation(np.array(words.split(" ")))
        text = " ".join([*order, *order[int(rng.integers(0, 8)) : int(rng.integers(9, 14))]])
        history = vocabulary.encode(text)
        history = history[: len(history) - int(rng.integers(0, 6))]
        ours = left_by(logits, history, dry_multiplier=1.0, dry_breakers=found, dry_window=200)
        theirs = llama.apply(llama.dry(vocabulary.handle, 1.0, 1.75, 2, 200, breakers), logits, history)
        assert_alike(ours, theirs)
        penalised += any(ours.values())
    assert penalised >= 2


@functools.cache
def processors() -> Any:
    """Import transformers.generation.logits_process once and late, since it imports torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.generation import logits_process
    return logits_process


def left_by_transformers(
    logits: Floats, processor: Any, history: list[int] | None = None
) -> dict[int, float]:
    import torch

    scores = processor(torch.tensor([history or [0]]), torch.from_numpy(logits.copy())[None])[0]
    return {i: x for i, x in enumerate(scores.tolist()) if x != -math.inf}


@pytest.mark.parametrize(("seed", "size", "scale"), ROWS)
@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
def test_transformers_filters(seed: int, size: int, scale: float, part: float) -> None:
    logits, them = row_of(seed, size, scale), processors()
    k = max(1, int(part * 100))
    assert_alike(left_by(logits, top_k=k), left_by_transformers(logits, them.TopKLogitsWarper(k)))
    assert_alike(left_by(logits, min_p=part), left_by_transformers(logits, them.MinPLogitsWarper(part)), 1e-3)
    assert_alike(left_by(logits, top_p=part), left_by_transformers(logits, them.TopPLogitsWarper(part)), 1e-3)
    theirs = left_by_transformers(logits, them.TypicalLogitsWarper(part))
    assert_alike(left_by(logits, typical_p=part), theirs, 1e-3)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 2.5])
def test_transformers_temperature(temperature: float) -> None:
    logits = row_of(2, 500, 3.0)
    theirs = left_by_transformers(logits, processors().TemperatureLogitsWarper(temperature))
    assert_alike(left_by(logits, temperature=temperature), theirs)


@pytest.mark.parametrize("penalty", [0.5, 1.1, 2.0])
def test_transformers_repetition_penalty(penalty: float) -> None:
    logits, history = row_of(3, 300, 3.0), np.random.default_rng(3).integers(0, 300, 90).tolist()
    theirs = left_by_transformers(logits, processors().RepetitionPenaltyLogitsProcessor(penalty), history)
    assert_alike(left_by(logits, history, repetition_penalty=penalty, penalty_window=-1), theirs)


@pytest.mark.parametrize("seed", range(20))
def test_the_whole_chain_of_llama_cpp(seed: int) -> None:
    logits, history = row_of(seed, 2_000, 3.0), repeating(seed, 40, 100)
    values: dict[str, Any] = {
        "repetition_penalty": 1.2,
        "presence_penalty": 0.3,
        "frequency_penalty": 0.1,
        "dry_multiplier": 0.7,
        "dry_window": 90,
        "top_k": 40,
        "typical_p": 0.9,
        "top_p": 0.9,
        "min_p": 0.02,
        "xtc_probability": 1.0,
        "temperature": 0.8,
    }
    theirs = llama.apply(
        llama.chain(
            llama.penalties(2_000, 64, 1.2, 0.1, 0.3),
            llama.dry(None, 0.7, 1.75, 2, 90, []),
            llama.top_k(40),
            llama.typical(0.9),
            llama.top_p(0.9),
            llama.min_p(0.02),
            llama.xtc(0.1),
            llama.temperature(0.8),
        ),
        logits,
        history,
    )
    assert 1 <= len(theirs) < 40
    assert_alike(left_by(logits, history, **values), theirs)
