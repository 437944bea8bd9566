"""Real GPT-2, wherever its weights are: model store, Hugging Face cache, or POPHOOD_TEST_GPT2=folder."""

from __future__ import annotations

import os

import pytest

import pophood
from pophood import hub
from pophood.errors import PophoodError

DOG = [464, 3290]
DOG_CONTINUES = [
    373,
    1043,
    287,
    257,
    2214,
    1474,
    262,
    16246,
    286,
    2688,
    290,
    2688,
    27262,
    13,
    198,
    198,
    464,
    3290,
]


@pytest.fixture(scope="module")
def gpt2() -> pophood.LM:
    named = os.environ.get("POPHOOD_TEST_GPT2")
    try:
        located = hub.locate(named or "gpt2", offline=True)
    except PophoodError as error:
        pytest.skip(f"GPT-2 weights are not here: set POPHOOD_TEST_GPT2=folder ({error})")
    return pophood.load(located)


def test_parameters(gpt2: pophood.LM) -> None:
    assert gpt2.n_params == 124_439_808
    config = gpt2.config
    assert (config.n_layer, config.n_head, config.n_embd, config.n_positions) == (12, 12, 768, 1024)
    assert gpt2.tokens("The capital of Spain is").column("token_id") == [464, 3139, 286, 8602, 318]


def test_the_talks_line(gpt2: pophood.LM) -> None:
    generation = gpt2.generate("The capital of Spain is", max_tokens=10, top_k=40, temperature=0.00001)
    assert generation.text == "The capital of Spain is Madrid, and the capital of Spain is Madrid."


def test_the_dog(gpt2: pophood.LM) -> None:
    assert gpt2.tokenize("The dog") == DOG
    tokens = gpt2.generate("The dog", max_tokens=len(DOG_CONTINUES), temperature=0).tokens
    assert [token.id for token in tokens] == DOG_CONTINUES
