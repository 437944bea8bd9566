"""Every tap against transformers in f32: GPT-2 small's shape, Llama, Qwen2 and Qwen3, random weights.

Agreement: max|a-b| over max|b| of each position, at most 1e-4 (scores: on entries that are not masked).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.look.math.unembed import Unembed
from pophood.model.engine import Engine, instruction_sets
from pophood.model.trace import Trace, trace
from pophood.taps import taps_of
from tests.look.transformers_taps import InMemory, reference_model, truth_of
from tests.tiny_values import Values, gpt2_config, tiny_config

Floats = NDArray[np.float32]
BAR = 1e-4
_SHAPE: dict[str, Any] = {"n_embd": 192, "n_kv_head": 2, "n_inner": 500}
CONFIGS = {
    "gpt2-small": gpt2_config("gpt2"),
    "llama": tiny_config("llama", **_SHAPE, n_layer=3, n_head=8, head_dim=24),
    "llama-untied": tiny_config("llama-untied"),
    "qwen2": tiny_config("qwen2", **_SHAPE, n_layer=2, n_head=6, head_dim=32),
    "qwen3": tiny_config("qwen3", **_SHAPE, n_layer=2, n_head=6, head_dim=48),
}
TOKENS = {"gpt2-small": 24, "llama": 70}  # 70: over two blocks of the cache


@dataclass(frozen=True)
class Case:
    """A model in pophood and in transformers."""

    config: ModelConfig
    weights: InMemory
    engine: Engine
    ids: list[int]
    ours: Trace
    theirs: dict[str, Floats]
    lens: list[Floats]  # transformers: the residual stream after every block through final norm and output


@pytest.fixture(scope="module", params=CONFIGS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    import torch

    config = CONFIGS[request.param]
    ids = np.random.default_rng(8).integers(0, config.vocab_size, TOKENS.get(request.param, 12)).tolist()
    weights = InMemory(Values(config, seed=5))
    engine = Engine(config)
    engine.load(weights)
    model = reference_model(config, weights)
    theirs = truth_of(model, config, ids)
    norm = model.transformer.ln_f if config.rope is None else model.model.norm
    streams = [torch.from_numpy(theirs[f"blocks.{i}.resid_post"]) for i in range(config.n_layer)]
    with torch.no_grad():
        lens = [model.lm_head(norm(stream[-4:])).numpy() for stream in streams]
    yield Case(config, weights, engine, ids, trace(engine, ids), theirs, lens)


def difference(name: str, ours: NDArray[np.floating[Any]], theirs: Floats) -> float:
    """Return the largest difference of a position relative to its largest number; infinite for NaN."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return float("inf")
    axis = 1 if name.endswith((".scores", ".pattern")) else 0  # [H, query, key]; all others begin with T
    by_position = [np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1) for x in (ours - theirs, theirs)]
    apart, size = (np.abs(x).max(axis=1) for x in by_position)
    return float((apart / size).max())


def test_every_tap_is_what_transformers_computes(case: Case) -> None:
    assert set(case.theirs) == set(taps_of(case.config)) == set(case.ours.arrays)
    masked = np.triu(np.ones((len(case.ids), len(case.ids)), bool), 1)
    differences = {}
    for name, theirs in case.theirs.items():
        ours = case.ours[name]
        if name.endswith(".scores"):
            assert (ours[:, masked] == -np.inf).all(), name
            ours, theirs = np.where(masked, 0, ours), np.where(masked, 0, theirs)
        differences[name] = difference(name, ours, theirs)
    wrong = {name: value for name, value in differences.items() if not value <= BAR}
    assert not wrong, wrong
    worst = max(differences, key=differences.__getitem__)
    print(f"\n{case.config.architecture}, {len(differences)} taps: worst {worst} {differences[worst]:.1e}")


def test_axes_name_the_shapes(case: Case) -> None:
    config, n = case.config, len(case.ids)
    sizes = {"token": n, "query": n, "key": n, "head": config.n_head, "kv_head": config.n_kv_head}
    sizes |= {"dim": config.head_dim, "feature": config.n_embd, "neuron": config.n_inner}
    sizes |= {"vocabulary": config.vocab_size}
    for name, array in case.ours.arrays.items():
        assert array.shape == tuple(sizes[axis] for axis in case.ours.axes(name)), name


def test_patterns_are_weights_over_earlier_positions(case: Case) -> None:
    masked = np.triu(np.ones((len(case.ids), len(case.ids)), bool), 1)
    patterns = case.ours.layers("attn.pattern")
    assert (patterns[..., masked] == 0).all()
    assert (patterns >= 0).all()
    np.testing.assert_allclose(patterns.sum(-1, dtype=np.float64), 1, atol=2e-6)


def test_the_residual_stream_adds_up(case: Case) -> None:
    ours = case.ours
    stream = ours["embed.token"].astype(np.float64)
    if case.config.rope is None:
        stream += ours["embed.position"]
    for i in range(case.config.n_layer):
        block = f"blocks.{i}"
        for part, after in (("attn.out", "resid_mid"), ("mlp.out", "resid_post")):
            stream += ours[f"{block}.{part}"]
            assert np.abs(stream - ours[f"{block}.{after}"]).max() <= 1e-3, (i, after)
            before = ours[f"{block}.resid_pre" if part == "attn.out" else f"{block}.resid_mid"]
            assert np.array_equal(before + ours[f"{block}.{part}"], ours[f"{block}.{after}"]), (i, after)


def test_heads_add_up_to_the_attention(case: Case) -> None:
    for i in range(case.config.n_layer):
        heads = case.ours[f"blocks.{i}.attn.result"].sum(axis=1, dtype=np.float64)
        bias = case.weights.arrays.get(f"blocks.{i}.attn.out.bias", 0.0)
        assert difference("attn.out", heads + bias, case.ours[f"blocks.{i}.attn.out"]) <= 1e-5, i


def test_norms_are_centred_and_scaled_before_the_gain(case: Case) -> None:
    blocks = [f"blocks.{i}" for i in range(case.config.n_layer)]
    norms = {f"{block}.ln_1": f"{block}.resid_pre" for block in blocks}
    norms |= {f"{block}.ln_2": f"{block}.resid_mid" for block in blocks}
    norms |= {"final_norm": f"{blocks[-1]}.resid_post"}
    for name, stream in norms.items():
        given, normalized = (case.ours[tap].astype(np.float64) for tap in (stream, f"{name}.normalized"))
        if case.config.norm == "layer":
            np.testing.assert_allclose(normalized.mean(axis=1), 0, atol=1e-5)
            given -= given.mean(axis=1, keepdims=True)
        square = np.square(given).mean(axis=1)  # 1 after the norm, but for the epsilon under the root
        expected = square / (square + case.config.norm_eps)
        np.testing.assert_allclose(np.square(normalized).mean(axis=1), expected, rtol=1e-5)
        gain, shift = case.weights.arrays[f"{name}.weight"], case.weights.arrays.get(f"{name}.bias", 0.0)
        assert difference(name, normalized * gain + shift, case.ours[name]) <= 1e-6


def test_the_lens_is_the_end_of_the_model_after_every_block(case: Case) -> None:
    arrays, config = case.weights.arrays, case.config
    matrix = arrays["embed.token" if config.tied_output else "output.weight"]
    end = Unembed(matrix, arrays["final_norm.weight"], arrays.get("final_norm.bias"), config.norm_eps)
    for i, theirs in enumerate(case.lens):
        ours = end.logits(end.norm(case.ours[f"blocks.{i}.resid_post"][-4:]))
        assert np.abs(ours - theirs).max() <= 1e-3, i
    last = case.ours[f"blocks.{config.n_layer - 1}.resid_post"]
    assert np.abs(end.logits(end.norm(last)) - case.ours.logits).max() <= 1e-3


@pytest.mark.parametrize("isa", instruction_sets())
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_every_instruction_set_reads_the_same(family: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(family, vocab_size=600, n_embd=96, head_dim=24)
    weights = InMemory(Values(config, seed=9))
    ids = np.random.default_rng(9).integers(0, config.vocab_size, 40).tolist()
    theirs = truth_of(reference_model(config, weights), config, ids)
    monkeypatch.setenv("POPHOOD_ISA", isa)
    engine = Engine(config)
    engine.load(weights)
    assert engine.isa == isa
    ours = trace(engine, ids)
    names = [name for name in theirs if not name.endswith(".scores")]
    wrong = {
        name: value for name in names if not (value := difference(name, ours[name], theirs[name])) <= BAR
    }
    assert not wrong


# ---- the same bits in every way of computing ----


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_taps_bits_depend_on_its_rows_history_only(family: str) -> None:
    config = tiny_config(family, vocab_size=600)
    weights = InMemory(Values(config, seed=6))
    ids = np.random.default_rng(7).integers(0, config.vocab_size, 75).tolist()
    expected: dict[str, Floats] = {}
    plain: Floats | None = None
    for threads in (1, 2, 3):
        engine = Engine(config, threads=threads)
        engine.load(weights)

        def read(*taps: str, chunk: int = 512, start: int = 0, engine: Engine = engine) -> dict[str, Floats]:
            sequence = engine.new_sequence()
            if start:
                engine.logits([(sequence, ids[:start])])
            result = engine.forward([(sequence, ids[start:])], rows="all", taps=taps, chunk=chunk)
            return result.taps | {"output": result.output}

        plain = read()["output"] if plain is None else plain
        expected = expected or read("*")
        same(read(), {"output": plain}, "nothing read")
        same(expected, {"output": plain, "logits": plain}, "everything read")
        for chunk in (1, 7, 64, 512):
            same(read("*", chunk=chunk), expected, f"{threads} threads, chunks of {chunk}")
        same(read("*.scores", "blocks.1.mlp.*"), expected, "a few taps")
        same(read("*.pattern"), expected, "patterns without scores")
        for name, array in read("*", start=33).items():
            assert array.tobytes() == expected[name][33:].tobytes(), f"{name}: after a prefix"


def same(got: dict[str, Floats], expected: dict[str, Floats], how: str) -> None:
    """Assert that the arrays of both are equal bit for bit."""
    shared = got.keys() & expected.keys()
    assert shared
    changed = [name for name in shared if got[name].tobytes() != expected[name].tobytes()]
    assert not changed, f"{how}: {changed}"


def test_sequences_of_one_batch_are_read_side_by_side() -> None:
    config = tiny_config("llama")
    engine = Engine(config)
    engine.load(InMemory(Values(config)))
    first, second = [5, 6, 7, 8, 9], [11, 12, 13]
    alone = [trace(engine, ids) for ids in (first, second)]
    both = engine.forward([(engine.new_sequence(), first), (engine.new_sequence(), second)], taps=["*"]).taps
    for name, array in both.items():
        for rows, one in ((slice(0, 5), alone[0]), (slice(5, 8), alone[1])):
            got, wanted = array[rows], one[name]
            if name.endswith((".scores", ".pattern")):
                got, wanted = got[..., : len(one.ids)], wanted.transpose(1, 0, 2)
            assert np.array_equal(got, wanted), name
    beyond = both["blocks.0.attn.pattern"][5:, :, 3:]
    assert (beyond == 0).all()
