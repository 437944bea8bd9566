"""Gemma 3 270M as a GGUF file (Q4_K_M) beside llama.cpp, where POPHOOD_TEST_GEMMA3 names the file.

The file says neither which blocks have a window nor the rotary base of those: llama.cpp's defaults hold.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine
from tests.conftest import ROOT
from tests.llama import open_llama

TEXT = (ROOT / "tests/data/wikitext2/valid-20000.txt").read_text(encoding="utf-8")
LENGTH = 900  # longer than the window
ADDED = "éß漢字かな🙂\u200b\t\n  \u00a0<bos><start_of_turn>𝄞Ω≈ç√ 1234 ''"
Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the opened file."""
    named = os.environ.get("POPHOOD_TEST_GEMMA3")
    if not named:
        pytest.skip("Gemma 3 270M is not here: set POPHOOD_TEST_GEMMA3=file")
    return open_bundle(named)


def logits(bundle: Bundle, ids: list[int], precision: str) -> Logits:
    engine = Engine(bundle.config, precision)
    engine.load(bundle.weights)
    return engine.logits([(engine.new_sequence(), ids)], rows="all")


def perplexity(rows: Logits, ids: list[int]) -> float:
    wide = rows[:-1].astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    chosen = wide[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(wide).sum(axis=1))
    return float(np.exp(-chosen.mean()))


def test_what_the_file_leaves_out(bundle: Bundle) -> None:
    config = bundle.config
    assert (config.architecture, config.n_params) == ("gemma3_text", 268_098_176)
    windows = [block.window for block in config.block_attention]
    assert windows == [None if i % 6 == 5 else 512 for i in range(18)]
    bases = {block.window: block.rope and block.rope.theta for block in config.block_attention}
    assert bases == {512: 1e4, None: 1e6}


def test_perplexity_beside_llama_cpp(bundle: Bundle) -> None:
    ids = list(bundle.tokenizer.encode(TEXT))[:LENGTH]
    exact, stored = (perplexity(logits(bundle, ids, precision), ids) for precision in ("f32", "auto"))
    llama = open_llama(bundle.path, n_ctx=1024, n_batch=1024, n_threads=1, logits_all=True)
    llama.eval(ids)
    theirs = perplexity(np.array(llama.scores[:LENGTH], np.float32), ids)
    assert abs(stored / exact - 1) < 0.005, (exact, stored)
    assert abs(theirs / exact - 1) < 0.01, (exact, theirs)  # llama.cpp rounds its inputs too


def test_tokens_are_llama_cpps(bundle: Bundle) -> None:
    import llama_cpp

    llama = llama_cpp.Llama(str(bundle.path), vocab_only=True, verbose=False)
    chance = random.Random(1)
    shakespeare = Path(ROOT / "tests/data/tinyshakespeare/first-120000.txt").read_text(encoding="utf-8")
    text = TEXT + shakespeare
    for _ in range(2_000):
        start = chance.randrange(len(text) - 200)
        piece = text[start : start + chance.randrange(1, 80)]
        cut = chance.randrange(len(piece) + 1)
        piece = piece[:cut] + "".join(chance.choices(ADDED, k=chance.randrange(5))) + piece[cut:]
        assert llama.tokenize(piece.encode(), special=False) == list(bundle.tokenizer.encode(piece)), piece
