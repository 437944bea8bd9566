"""The numbers that a comparison of ordinary models hides: epsilons, constants of activations, large scores.

In a model of ordinary size an epsilon is lost beside the numbers it is added to, an activation's constant
beside its neighbours, and the maximum that softmax subtracts cancels. Here the stream is so small that every
epsilon decides, activations are compared one by one over their whole range, and scores are so large that a
wrong maximum overflows. The authority is torch, and transformers for whole models.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.model.engine import Engine
from pophood.model.trace import trace
from tests.look.transformers_taps import InMemory, reference_model, truth_of
from tests.tiny_values import FAMILIES, Values, tiny_config

Floats = NDArray[np.float32]
SMALL = 2e-3  # of the usual size: mean squares of the order of the epsilon


def engine_of(config: ModelConfig, weights: InMemory) -> Engine:
    engine = Engine(config)
    engine.load(weights)
    return engine


# ---- epsilons ----


def small_weights(config: ModelConfig) -> InMemory:
    """Random weights whose residual stream, queries and keys stay about as small as the epsilon's root."""
    weights = InMemory(Values(config, seed=4))
    added = (".out.", ".down.")  # what the blocks add to the stream
    compared = (".attn.q.", ".attn.k.") if config.qk_norm else ()
    for name in weights.arrays:
        if name.startswith("embed"):
            weights.arrays[name] = weights.arrays[name] * np.float32(10 * SMALL)
        elif any(part in name for part in (*added, *compared)):
            weights.arrays[name] = weights.arrays[name] * np.float32(SMALL)
    return weights


def norms_of(config: ModelConfig) -> list[str]:
    """The taps where a norm's epsilon shows first."""
    blocks = [f"blocks.{i}" for i in range(config.n_layer)]
    names = [f"{block}.{norm}.normalized" for block in blocks for norm in ("ln_1", "ln_2")]
    names += [f"{block}.attn.rot_{letter}" for block in blocks for letter in "qk" if config.qk_norm]
    return [*names, "final_norm.normalized", "logits"]


def apart(ours: Floats, theirs: Floats) -> float:
    """The largest difference of a position, relative to its largest number."""
    difference, size = (np.abs(x).reshape(len(x), -1).max(axis=1) for x in (ours - theirs, theirs))
    return float((difference / size).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_has_the_models_epsilon(family: str) -> None:
    config = tiny_config(family, vocab_size=600)
    weights = small_weights(config)
    ids = np.random.default_rng(3).integers(0, config.vocab_size, 20).tolist()
    theirs = truth_of(reference_model(config, weights), config, ids)
    engine, other_engine = (
        engine_of(replace(config, norm_eps=f * config.norm_eps), weights) for f in (1, 1.05)
    )
    ours, other = trace(engine, ids), trace(other_engine, ids)
    plain = engine.forward([(engine.new_sequence(), ids)], rows="all").output  # not the way of a trace
    assert plain is not None
    assert apart(plain, theirs["logits"]) <= 1e-4
    hidden = engine.forward([(engine.new_sequence(), ids)], rows="all", output="hidden").output
    assert hidden is not None
    assert apart(hidden, theirs["final_norm"]) <= 1e-4
    names = norms_of(config)
    assert len(names) >= 2 + 2 * config.n_layer
    for name in names:
        assert apart(ours[name], theirs[name]) <= 1e-4, name
        assert apart(other[name], theirs[name]) > 1e-3, f"{name}: this model is too large to show an epsilon"


# ---- activations ----


def torch_activation(name: str, values: Floats) -> NDArray[np.float64]:
    import torch
    from transformers.activations import ACT2FN

    theirs = {"gelu_tanh": "gelu_new", "gelu": "gelu", "silu": "silu"}[name]
    result: NDArray[np.float64] = ACT2FN[theirs](torch.from_numpy(values.astype(np.float64))).numpy()
    return result


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu", "silu"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_value_of_an_activation_is_torchs(family: str, activation: Any) -> None:
    config = tiny_config(family, vocab_size=600, activation=activation)
    weights = InMemory(Values(config, seed=6))
    for name in weights.arrays:
        if name.endswith("ln_2.weight"):
            weights.arrays[name] = weights.arrays[name] * np.float32(2)
    ids = np.random.default_rng(6).integers(0, config.vocab_size, 100).tolist()
    ours = trace(engine_of(config, weights), ids)
    after = "mlp.gate" if config.gated_mlp else "mlp.post"
    before = ours.layers("mlp.pre").reshape(-1)
    for low, high in ((-20, -5), (-5, -2), (-2, -0.5), (-0.5, 0.5), (0.5, 2), (2, 5), (5, 20)):
        assert ((before > low) & (before < high)).sum() > 20, "the whole range is there"
    wanted = torch_activation(activation, before)
    np.testing.assert_allclose(ours.layers(after).reshape(-1), wanted, rtol=2e-6, atol=1e-6)


def test_these_bounds_tell_the_constants_of_gelu_apart() -> None:
    """0.044715 is not 0.0448, and the root of 2 / pi is not 0.798."""
    x = np.linspace(-8, 8, 20_001, dtype=np.float32)
    wanted = torch_activation("gelu_tanh", x)
    double = x.astype(np.float64)
    for root, cube in ((np.sqrt(2 / np.pi), 0.0448), (0.798, 0.044715), (np.sqrt(2 / np.pi), 0.04472)):
        wrong = 0.5 * double * (1 + np.tanh(root * (double + cube * double**3)))
        assert not np.allclose(wrong, wanted, rtol=2e-6, atol=1e-6), (root, cube)


# ---- softmax ----

EDGES = (1, 2, 15, 16, 17, 18, 31, 32, 33, 34, 47, 48, 49, 63, 64, 65)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_softmax_is_right_wherever_its_maximum_is(family: str) -> None:
    """Every number of visible keys to 66, scores of hundreds: a key left out of the maximum overflows."""
    import torch

    config = tiny_config(family, vocab_size=600, n_layer=2)
    weights = InMemory(Values(config, seed=7))
    larger = ("attn.q_norm.weight",) if config.qk_norm else ("attn.q.weight",)
    for name in weights.arrays:
        if name.endswith(larger):
            weights.arrays[name] = weights.arrays[name] * np.float32(60)
    engine = engine_of(config, weights)
    at_the_last: set[int] = set()  # numbers of visible keys whose maximum is the last, with a wide margin
    widest = 0.0
    for seed in range(48):
        ids = np.random.default_rng(seed).integers(0, config.vocab_size, 66).tolist()
        ours = trace(engine, ids, taps=[f"*.attn.{name}" for name in ("scores", "pattern", "v", "z")])
        scores, pattern = ours.layers("attn.scores"), ours.layers("attn.pattern")
        wanted = torch.softmax(torch.from_numpy(scores.astype(np.float64)), dim=-1).numpy()
        np.testing.assert_allclose(pattern, wanted, rtol=1e-4, atol=1e-6)
        # Attention itself never has the whole pattern: it goes through the keys once, block by block.
        values = np.repeat(ours.layers("attn.v"), config.n_head // config.n_kv_head, axis=2)
        mixed = np.einsum("lhqk,lkhd->lqhd", wanted, values.astype(np.float64))
        np.testing.assert_allclose(ours.layers("attn.z"), mixed, rtol=1e-4, atol=1e-4)
        for row in range(1, 66):
            before, last = scores[..., row, :row].max(axis=-1), scores[..., row, row]
            widest = max(widest, float((last - before).max()))
            at_the_last |= {row + 1} if (last - before).max() > 20 else set()
    assert widest > 100, "exp(100) is infinite in f32"
    assert set(EDGES[1:]) <= at_the_last
