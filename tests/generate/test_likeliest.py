"""Choosing from the likeliest tokens gives the tokens and probabilities that whole rows of logits give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pophood
from pophood.generate import choose
from pophood.sampling import Likeliest, SamplingSettings, chain, measures, ranked
from tests.tiny import tiny_folder

WAYS: list[dict[str, Any]] = [
    {"temperature": 0},
    {},
    {"top_k": 5, "top_p": 0.7, "min_p": 0.05},
    {"top_k": 1},
    {"top_k": 30, "typical_p": 0.6, "temperature": 1.7},
    {"top_k": 20, "xtc_probability": 0.8, "xtc_threshold": 0.05},
    {"min_tokens": 6, "top_k": 8},
    {"temperature": 0, "min_tokens": 6},
]
WHOLE_ROWS: list[dict[str, Any]] = [
    {"top_k": 0},
    {"repetition_penalty": 1.2},
    {"temperature": 0, "logit_bias": {7: 3.0}},
]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder: Path = tmp_path_factory.mktemp("likeliest") / "model"
    return pophood.load(tiny_folder(folder, "llama", seed=3))


def records(lm: pophood.LM, values: dict[str, Any]) -> list[Any]:
    given = {"max_tokens": 12, "samples": 2, "seed": 9, "details": "top", "top": 12, **values}
    return list(lm.stream("The capital of", **given))


@pytest.mark.parametrize("values", WAYS)
def test_tokens_are_those_of_whole_rows(
    lm: pophood.LM, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    summary = lm.engine.summary

    def counted(*arguments: Any, **more: Any) -> Any:
        asked.append(more["whole"])
        return summary(*arguments, **more)

    monkeypatch.setattr(lm.engine, "summary", counted)
    short = records(lm, values)
    assert not any(asked), "no row of logits was needed"
    monkeypatch.setattr(choose, "MOST_LIKELIEST", 0)
    asked.clear()
    whole = records(lm, values)
    assert all(asked)
    for ours, theirs in zip(short, whole, strict=True):
        for name in ("id", "text", "position", "sample", "logit", "final_probability", "finish"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert (ours.probability, ours.entropy, ours.top) == (theirs.probability, theirs.entropy, theirs.top)


@pytest.mark.parametrize("values", WHOLE_ROWS)
def test_steps_that_see_every_token_get_whole_rows(
    lm: pophood.LM, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    summary = lm.engine.summary

    def counted(*arguments: Any, **more: Any) -> Any:
        asked.append(more["whole"])
        return summary(*arguments, **more)

    monkeypatch.setattr(lm.engine, "summary", counted)
    assert records(lm, values) and all(asked)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_chain_after_top_k_chooses_alike(data: st.DataObject) -> None:
    """Rows with ties, forbidden tokens, and any numbers of likeliest tokens."""
    size = data.draw(st.integers(2, 40))
    row = np.array(
        data.draw(st.lists(st.sampled_from([-2.0, 0.0, 1.0, 1.5, 4.0]), min_size=size, max_size=size)),
        np.float32,
    )
    k = data.draw(st.integers(1, size))
    forbidden = tuple(sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=min(3, size - 1)))))
    chosen = chain(SamplingSettings(top_k=k, top_p=data.draw(st.sampled_from([1.0, 0.5])), temperature=0.9))
    needed = min(k + len(forbidden), size)
    ids = ranked(row, needed).astype(np.int32)
    likeliest = Likeliest(ids, row[ids], *measures(row))
    where: dict[str, Any] = {
        "seed": data.draw(st.integers(0, 99)),
        "sample": 0,
        "position": 3,
        "forbidden": forbidden,
    }
    ours, theirs = chosen.choose(likeliest, [], **where), chosen.choose(row, [], **where)
    assert (ours.id, ours.logit, ours.final_probability) == (
        theirs.id,
        theirs.logit,
        theirs.final_probability,
    )
