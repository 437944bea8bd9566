"""Scores: each token's log-probability, however the text is cut into windows and rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pophood.errors import BadInput, Cancelled
from pophood.model import score
from pophood.model.engine import CancelFlag, Engine
from pophood.model.score import greedy, logit_rows, score_ids
from tests.test_engine import engine_of

IDS = np.random.default_rng(3).integers(0, 512, 200).tolist()


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of("llama")


def plain(engine: Engine, ids: list[int]) -> NDArray[np.float64]:
    """Compute the definition: the log softmax of the row before, at the token."""
    with engine.sequence() as sequence:
        rows = engine.logits([(sequence, ids)], rows="all").astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return np.array([np.nan, *(logs[i, ids[i + 1]] for i in range(len(ids) - 1))])


def test_one_window_is_the_definition(engine: Engine) -> None:
    result = score_ids(engine, IDS)
    truth = plain(engine, IDS)
    assert np.isnan(result.log_probabilities[0]) and result.scored == 199
    assert np.nanmax(np.abs(result.log_probabilities - truth)) < 1e-5
    assert abs(result.mean_nll + np.nanmean(truth)) < 1e-6
    assert abs(result.perplexity - np.exp(result.mean_nll)) < 1e-9 * result.perplexity


@settings(max_examples=25, deadline=None)
@given(window=st.integers(2, 256), overlap=st.integers(0, 255), rows=st.sampled_from([1, 7, 128]))
def test_windows_are_scored_on_their_own(engine: Engine, window: int, overlap: int, rows: int) -> None:
    if overlap >= window:
        with pytest.raises(BadInput, match="overlap must be"):
            score_ids(engine, IDS, window=window, overlap=overlap)
        return
    if window - overlap < 8:  # dozens of windows are enough
        overlap = 0
        window = max(window, 8)
    before = score.ROWS
    score.ROWS = rows
    try:
        result = score_ids(engine, IDS, window=window, overlap=overlap)
    finally:
        score.ROWS = before
    expected = np.full(len(IDS), np.nan)
    start = 0
    while True:
        part = plain(engine, IDS[start : start + window])
        skip = overlap if start else 0
        expected[start + skip : start + len(part)] = part[skip:]
        if start + window >= len(IDS):
            break
        start += window - overlap
    assert np.array_equal(np.isnan(result.log_probabilities), np.isnan(expected))
    assert np.nanmax(np.abs(result.log_probabilities - expected)) < 1e-5


def test_nothing_stays_behind_and_wrong_values_are_refused(engine: Engine) -> None:
    flag = CancelFlag()
    flag.set()
    with pytest.raises(Cancelled):
        score_ids(engine, IDS, cancel=flag)
    with pytest.raises(BadInput, match=r"window must be 2\.\.256 tokens, got 257"):
        score_ids(engine, IDS, window=257)
    seen: list[tuple[int, int]] = []
    score_ids(engine, IDS, window=64, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]


@pytest.mark.parametrize("n", [0, 1])
def test_too_little_text_has_no_score(engine: Engine, n: int) -> None:
    result = score_ids(engine, IDS[:n])
    assert result.scored == 0 and np.isnan(result.mean_nll) and len(result.log_probabilities) == n


@pytest.mark.parametrize("first", [1, 2, 130, 199])
def test_rows_of_logits_begin_where_they_are_wanted(engine: Engine, first: int) -> None:
    before = engine.cache_bytes
    with engine.sequence() as sequence:
        expected = engine.logits([(sequence, IDS)], rows="all")
    places, rows = list[int](), list[NDArray[np.float32]]()
    for place, logits in logit_rows(engine, IDS, first=first):
        places += range(place, place + len(logits))
        rows.append(logits)
    assert places == list(range(first, 200))
    assert np.concatenate(rows).tobytes() == expected[first - 1 : -1].tobytes()
    assert engine.cache_bytes == before
    next(logit_rows(engine, IDS))  # a reader that stops early leaves no sequence
    assert engine.cache_bytes == before


def test_greedy_continuations_are_those_of_each_prompt_alone(engine: Engine) -> None:
    prompts, before = [IDS[:5], IDS[20:50], IDS[60:61]], engine.cache_bytes
    together = list(greedy(engine, prompts, 6))
    for number, prompt in enumerate(prompts):
        ids = list(prompt)
        for tokens in together:
            with engine.sequence() as sequence:
                ids.append(int(engine.logits([(sequence, ids)])[0].argmax()))
            assert tokens[number] == ids[-1]
    assert engine.cache_bytes == before


def test_a_greedy_text_ends_when_it_is_deleted(engine: Engine) -> None:
    lengths, before = [0, 0, 0], engine.cache_bytes
    for step, tokens in enumerate(greedy(engine, [IDS[:5], IDS[5:9], IDS[9:12]], 6)):
        for number in list(tokens):
            lengths[number] += 1
            if step == number:
                del tokens[number]
    assert lengths == [1, 2, 3]
    assert engine.cache_bytes == before
