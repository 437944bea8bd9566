"""The engine against transformers in float32: every family, every block, and mutants that must be caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine, StoredWeights
from tests.parity.reference import GREEDY, Truth, compare, engine_of, greedy_ids, loaded, truth_of
from tests.tiny import FAMILIES, GPT2_SIZES, gpt2_config, tiny_folder, tiny_gguf

# Small, but with every awkward thing: grouped heads, a head size that is no power of two, scaled rope.
SHAPE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 3, "n_embd": 96, "n_head": 6, "n_kv_head": 6, "head_dim": 16, "n_inner": 384},
    "llama": {"n_layer": 4, "n_embd": 192, "n_head": 8, "n_kv_head": 2, "head_dim": 24, "n_inner": 500},
    "llama-untied": {"n_layer": 3},
    "qwen2": {"n_layer": 4, "n_embd": 192, "n_head": 6, "n_kv_head": 3, "head_dim": 32, "n_inner": 500},
    "qwen3": {"n_layer": 4, "n_embd": 192, "n_head": 6, "n_kv_head": 2, "head_dim": 48, "n_inner": 500},
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Truth]]:
    """Each family's folder and its truth, made once."""
    made: dict[str, tuple[Path, Truth]] = {}

    def case(family: str) -> tuple[Path, Truth]:
        if family not in made:
            folder = tiny_folder(tmp_path_factory.mktemp(family) / "model", family, seed=1, **SHAPE[family])
            made[family] = folder, truth_of(folder)
        return made[family]

    return case


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_agrees_block_by_block(family: str, cases: Callable[[str], tuple[Path, Truth]]) -> None:
    folder, truth = cases(family)
    assert len(set(truth.greedy)) >= 20, "the model is too dull to tell engines apart"
    difference = compare(engine_of(folder), truth)
    assert difference.equal, difference


@pytest.mark.parametrize("family", FAMILIES)
def test_safetensors_and_gguf_give_the_same_bits(
    family: str, cases: Callable[[str], tuple[Path, Truth]], tmp_path: Path
) -> None:
    folder, truth = cases(family)
    gguf = tiny_gguf(tmp_path / "model.gguf", family, seed=1, **SHAPE[family])
    one, two = engine_of(folder), engine_of(gguf)
    results = [e.forward([(e.new_sequence(), truth.prompt)], rows="all").output for e in (one, two)]
    assert np.array_equal(results[0].view(np.uint32), results[1].view(np.uint32))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_16_bit_weights_agree(family: str, dtype: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", family, seed=2, dtype=dtype, **SHAPE[family])
    difference = compare(engine_of(folder), truth_of(folder))
    assert difference.equal, difference


# ---- mutants: each is one mistake that a port of these models makes, and the comparison must see it ----


@dataclass
class Mutated:
    """Weights with some tensors changed on their way to the engine."""

    weights: StoredWeights
    change: Callable[[str, NDArray[Any]], NDArray[Any] | None]
    rename: Callable[[str], str] = str

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        kind, values = self.weights.stored(self.rename(name))
        changed = self.change(name, values)
        return kind, values if changed is None else changed

    def stored_type(self, name: str) -> str:
        return self.weights.stored_type(self.rename(name))


def zeroed(suffix: str) -> Callable[[str, NDArray[Any]], NDArray[Any] | None]:
    return lambda name, values: np.zeros_like(values) if name.endswith(suffix) else None


def ones(suffix: str) -> Callable[[str, NDArray[Any]], NDArray[Any] | None]:
    return lambda name, values: np.ones_like(values) if name.endswith(suffix) else None


def unchanged(_name: str, _values: NDArray[Any]) -> None:
    return None


def swap_q_and_k(name: str) -> str:
    return name.replace(".q.", ".?.").replace(".k.", ".q.").replace(".?.", ".k.")


def unscaled(config: ModelConfig) -> ModelConfig:
    assert config.rope is not None
    return replace(config, rope=replace(config.rope, scaling="none"))


MUTANTS: dict[
    str, tuple[str, Callable[[ModelConfig], ModelConfig], Callable[..., Any], Callable[[str], str]]
] = {
    "no attention output bias": ("gpt2", lambda c: c, zeroed("attn.out.bias"), str),
    "no query bias": ("qwen2", lambda c: c, zeroed("attn.q.bias"), str),
    "no feed-forward bias": ("gpt2", lambda c: c, zeroed("mlp.down.bias"), str),
    "no norm bias": ("gpt2", lambda c: c, zeroed("ln_2.bias"), str),
    "erf GELU": ("gpt2", lambda c: replace(c, activation="gelu"), unchanged, str),
    "epsilon of layer norm": ("gpt2", lambda c: replace(c, norm_eps=1e-3), unchanged, str),
    "epsilon of RMS norm": ("llama", lambda c: replace(c, norm_eps=1e-3), unchanged, str),
    "ignored gain": ("llama", lambda c: c, ones("final_norm.weight"), str),
    "ignored query gain": ("qwen3", lambda c: c, ones("attn.q_norm.weight"), str),
    "no positions": ("gpt2", lambda c: c, zeroed("embed.position"), str),
    "unscaled rope": ("llama", unscaled, unchanged, str),
    "swapped q and k": ("llama-untied", lambda c: c, unchanged, swap_q_and_k),
    "swapped q and k of GPT-2": ("gpt2", lambda c: c, unchanged, swap_q_and_k),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: str, cases: Callable[[str], tuple[Path, Truth]]) -> None:
    family, config, change, rename = MUTANTS[mutant]
    folder, truth = cases(family)
    opened = open_weights(folder)
    engine = loaded(config(opened.config), Mutated(opened.weights, change, rename))
    difference = compare(engine, truth)
    assert not difference.equal, f"{mutant} was not seen: {difference}"


# ---- published shapes ----


@pytest.mark.parametrize(
    "size", [pytest.param(size, marks=[] if size == "gpt2" else [pytest.mark.full]) for size in GPT2_SIZES]
)
@pytest.mark.timeout(1800)
def test_published_gpt2_shapes(size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_folder(tmp_path / "model", size, seed=3, **asdict(gpt2_config(size)))
    truth = truth_of(folder, prompt_length=48)
    assert len(set(truth.greedy)) >= 20
    opened = open_weights(folder)
    assert opened.config.n_params == GPT2_SIZES[size][3]
    difference = compare(loaded(opened.config, opened.weights), truth)
    with capsys.disabled():
        print(f"\n{size}: {difference}")
    assert difference.equal, difference


# ---- the same bits, whatever the way ----


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_a_rows_bits_depend_on_its_history_only(
    family: str, cases: Callable[[str], tuple[Path, Truth]]
) -> None:
    folder, _ = cases(family)
    ids = np.random.default_rng(5).integers(0, 500, 100).tolist()
    first = engine_of(folder, threads=1)
    expected = all_logits(first, ids)
    for threads in (1, 2, 3):
        engine = engine_of(folder, threads=threads)
        for chunk in (1, 7, 512):
            result = engine.forward([(engine.new_sequence(), ids)], rows="all", chunk=chunk).output
            assert same_bits(result, expected), (threads, chunk)
        for others in (0, 2, 7):
            batch = [(engine.new_sequence(), ids)]
            batch += [(engine.new_sequence(), ids[i : 60 + 2 * i]) for i in range(1, others + 1)]
            result = engine.forward(batch, rows="all").output
            assert same_bits(result[: len(ids)], expected), (threads, others)
        with_taps = engine.forward([(engine.new_sequence(), ids)], rows="all", taps=["*"])
        assert same_bits(with_taps.output, expected), threads
        prefix = engine.new_sequence()
        engine.logits([(prefix, ids[:70])])
        again = engine.fork(prefix)
        engine.truncate(again, 45)
        result = engine.forward([(again, ids[45:])], rows="all").output
        assert same_bits(result, expected[45:]), threads
    assert greedy_ids(first, ids[:20]) == greedy_ids(engine_of(folder, threads=3), ids[:20])
    assert GREEDY == 64


def all_logits(engine: Engine, ids: list[int]) -> NDArray[np.float32]:
    with engine.sequence() as sequence:
        return engine.logits([(sequence, ids)], rows="all")


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
