"""A trace: named arrays with named axes, and its plan. tests/look/test_taps_*.py tests the values."""

from __future__ import annotations

import numpy as np
import pytest

import pophood
from pophood import system
from pophood.errors import BadInput, ContextOverflow, OutOfMemory
from tests.tiny import tiny_folder

TEXT = "the cat chased the mouse"


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder = tmp_path_factory.mktemp("model") / request.param
    tiny_folder(folder, request.param)
    return pophood.load(folder)


def test_it_holds_what_was_planned(lm: pophood.LM) -> None:
    trace, plan = lm.trace(TEXT), lm.plan_trace(TEXT)
    assert {name: array.nbytes for name, array in trace.arrays.items()} == plan.sizes
    assert trace.nbytes == plan.nbytes
    assert plan.describe() == f"{len(plan.sizes)} arrays, {plan.nbytes / 2**20:.1f} MiB"
    assert trace.ids == tuple(lm.tokenize(TEXT))
    for name in trace.arrays:
        assert len(trace.axes(name)) == trace[name].ndim


def test_the_logits_are_the_models(lm: pophood.LM) -> None:
    assert np.array_equal(lm.trace(TEXT, ["logits"]).logits, lm.logits(TEXT))


def test_a_pattern_is_head_by_query_by_key(lm: pophood.LM) -> None:
    trace = lm.trace(TEXT, ["*.pattern", "*.scores"])
    pattern, tokens = trace["blocks.1.attn.pattern"], len(trace.ids)
    assert trace.axes("blocks.1.attn.hook_pattern") == ("head", "query", "key")
    assert pattern.shape == (lm.config.n_head, tokens, tokens)
    masked = np.triu(np.ones((tokens, tokens), bool), 1)
    assert (pattern[:, masked] == 0).all() and (pattern[:, ~masked] > 0).all()
    assert np.isneginf(trace["blocks.1.attn.scores"][:, masked]).all()
    assert trace.layers("attn.pattern").shape == (lm.config.n_layer, *pattern.shape)


def test_it_leaves_no_sequence_behind(lm: pophood.LM) -> None:
    before = lm.engine.cache_bytes
    lm.trace(TEXT)
    held = lm.engine.cache_bytes
    for _ in range(3):
        lm.trace(TEXT)
    assert lm.engine.cache_bytes == held >= before


def test_what_does_not_fit_is_refused_before_computing(
    lm: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "available_memory", lambda: 10_000)
    with pytest.raises(
        OutOfMemory, match=r"would take \d+ arrays, .* MiB; 0.0 MiB is free: shorten .*'!logits'"
    ):
        lm.trace(TEXT)


def test_what_a_wrong_call_says(lm: pophood.LM) -> None:
    with pytest.raises(BadInput, match=r"no tap matches 'attn'; there are: embed.token"):
        lm.trace(TEXT, ["attn"])
    with pytest.raises(BadInput, match="the text is empty"):
        lm.trace([])
    with pytest.raises(ContextOverflow):
        lm.trace(TEXT * 500)
    trace = lm.trace(TEXT, ["final_norm"])
    with pytest.raises(BadInput, match="has no array 'logits'; it has: final_norm"):
        _ = trace.logits
    with pytest.raises(BadInput, match="no tap 'resid_post' in its blocks; it has: final_norm"):
        trace.layers("resid_post")
