"""Adapters in the engine: beside the weights they give the same result as merged; nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pophood
from pophood.adapters.adapter import Adapter, fold
from pophood.errors import BadInput
from tests.tiny import tiny_folder

TEXT = "the cat chased the mouse and the dog"


def random_adapter(lm: pophood.LM, seed: int, rank: int = 3, matrices: tuple[str, ...] = ()) -> Adapter:
    rng, targets = np.random.default_rng(seed), {}
    for name in lm.weights:
        target = name.removesuffix(".weight")
        inside = target.split(".", 2)[-1]
        if name.startswith("blocks.") and lm.weights[name].ndim == 2 and (not matrices or inside in matrices):
            rows, cols = lm.weights[name].shape
            a, b = (
                rng.standard_normal(shape).astype(np.float32) * 0.1 for shape in ((rank, cols), (rows, rank))
            )
            targets[target] = (a, b)
    return Adapter("random", rank, 2.0 * rank, 2.0, targets)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pophood.LM:
    folder: Path = tmp_path_factory.mktemp("model") / request.param
    tiny_folder(folder, request.param)
    return pophood.load(folder)


def test_it_computes_what_folding_gives(lm: pophood.LM) -> None:
    plain = lm.logits(TEXT)
    one, two = random_adapter(lm, 1), random_adapter(lm, 2, 5, ("attn.out", "mlp.up"))
    lm.engine.use_adapters([(one, 1.0), (two, -0.5)])
    adapted = lm.logits(TEXT)
    folded = pophood.load(lm.path)
    for name in one.targets:
        weight = fold(folded.weights[f"{name}.weight"], *one.targets[name], one.scale)
        folded.engine._native.set_tensor(f"{name}.weight", two.fold(name, weight, -0.5), "F32")
    expected = folded.logits(TEXT)
    assert np.abs(adapted - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(adapted - plain).max() > 0.05
    lm.engine.use_adapters([])
    assert np.array_equal(lm.logits(TEXT), plain)


def test_bits_do_not_depend_on_chunks_or_threads(lm: pophood.LM) -> None:
    ids, adapter = lm.tokenize(TEXT), random_adapter(lm, 3)
    results = []
    for threads, chunk in ((1, 512), (2, 512), (3, 1), (2, 3)):
        engine = pophood.load(lm.path, threads=threads).engine
        engine.use_adapters([(adapter, 1.0)])
        results.append(engine.forward([(engine.new_sequence(), ids)], rows="all", chunk=chunk).output)
    for result in results[1:]:
        assert np.array_equal(results[0], result)


def test_looking_inside_sees_the_adapter(lm: pophood.LM) -> None:
    lm.engine.use_adapters([(random_adapter(lm, 4), 1.0)])
    trace = lm.trace(TEXT)
    lm.engine.use_adapters([])
    out = trace["blocks.1.attn.result"].sum(1)
    if lm.config.attn_out_bias:
        out = out + lm.weights["blocks.1.attn.out.bias"]
    assert np.abs(out - trace["blocks.1.attn.out"]).max() < 1e-5
    assert np.abs(trace["blocks.0.attn.q"] - lm.trace(TEXT)["blocks.0.attn.q"]).max() > 1e-3


def test_a_sequence_keeps_the_adapters_that_it_began_with(lm: pophood.LM) -> None:
    ids = lm.tokenize(TEXT)
    sequence, other = lm.engine.new_sequence(), lm.engine.new_sequence()
    expected = lm.engine.logits([(other, ids)])
    lm.engine.use_adapters([(random_adapter(lm, 4), 1.0)])
    assert np.array_equal(lm.engine.logits([(sequence, ids)]), expected)
    assert not np.array_equal(lm.logits(TEXT)[-1], expected[0])
    lm.engine.use_adapters([])


def test_one_of_another_model_is_refused(lm: pophood.LM) -> None:
    wrong = Adapter(
        "wrong", 2, 4, 2.0, {"blocks.0.attn.q": (np.ones((2, 7), np.float32), np.ones((9, 2), np.float32))}
    )
    with pytest.raises(BadInput, match=r"the adapter wrong changes blocks\.0\.attn\.q"):
        lm.engine.use_adapters([(wrong, 1.0)])
    absent = Adapter("absent", 2, 4, 2.0, {"blocks.99.attn.q": wrong.targets["blocks.0.attn.q"]})
    with pytest.raises(BadInput, match=r"changes blocks\.99\.attn\.q, which this model does not have"):
        lm.engine.use_adapters([(absent, 1.0)])
