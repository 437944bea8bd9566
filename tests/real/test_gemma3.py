"""Gemma 3 270M as a GGUF file (Q4_K_M) beside transformers and llama.cpp, where the file is.

POPHOOD_TEST_GEMMA3 names it, or `pophood pull gemma3-270m` has fetched it; no test does, since its terms must
be accepted. The file says neither which blocks have a window nor the rotary base of those: llama.cpp's
defaults hold.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.errors import NotFound
from pophood.export.job import export_model
from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine
from tests.conftest import ROOT, USERS_HOME
from tests.llama import open_llama
from tests.made_families import opened_reference

TEXT = (ROOT / "tests/data/wikitext2/valid-20000.txt").read_text(encoding="utf-8")
LENGTH = 900  # longer than the window
ADDED = "éß漢字かな🙂\u200b\t\n  \u00a0<bos><start_of_turn>𝄞Ω≈ç√ 1234 ''"
Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the opened file."""
    from pophood.hub import locate

    named = os.environ.get("POPHOOD_TEST_GEMMA3")
    if named:
        return open_bundle(named)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POPHOOD_MODELS", str(USERS_HOME / "models"))
        try:
            return open_bundle(locate("gemma3-270m", offline=True).path)
        except NotFound:
            pytest.skip("Gemma 3 270M is not here: run `pophood pull gemma3-270m`")


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


@pytest.mark.full
def test_logits_at_f32_beside_transformers_and_llama_cpp(bundle: Bundle, tmp_path: Path) -> None:
    import torch

    ids = list(bundle.tokenizer.encode(TEXT))[:LENGTH]
    ours = logits(bundle, ids, "f32")
    export_model(bundle, tmp_path / "folder")
    with torch.no_grad():
        theirs = opened_reference(tmp_path / "folder")(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-3
    export_model(bundle, tmp_path / "f32.gguf")
    options = {"n_ctx": 1024, "n_batch": 1024, "n_threads": 1, "logits_all": True, "type_k": 0, "type_v": 0}
    llama = open_llama(tmp_path / "f32.gguf", **options)
    llama.eval(ids)
    # llama.cpp looks GELU up in a table of f16 (GGML_GELU_FP16 in ggml-cpu/vec.h), which moves logits by
    # 0.035. Compiled without it, it is within 0.002: docs/log.md, "logits of Gemma 3 270M".
    assert np.abs(ours - np.array(llama.scores[:LENGTH], np.float32)).max() < 0.06


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
    for _ in range(20_000):
        start = chance.randrange(len(text) - 200)
        piece = text[start : start + chance.randrange(1, 80)]
        cut = chance.randrange(len(piece) + 1)
        piece = piece[:cut] + "".join(chance.choices(ADDED, k=chance.randrange(5))) + piece[cut:]
        assert llama.tokenize(piece.encode(), special=False) == list(bundle.tokenizer.encode(piece)), piece
