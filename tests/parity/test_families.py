"""Every family against transformers in float32, with prompts longer than its windows, and mutants of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.config import BlockAttention, ModelConfig, Rope
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine
from tests.made_families import MADE, blocks_of, made_folder, opened_reference
from tests.parity.reference import Truth, compare, engine_of, loaded, truth_of_model

PROMPT = 60  # the windows have 16 or 20 positions
Case = tuple[Path, Truth]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """Each family's folder and its truth, made once."""
    made: dict[str, Case] = {}

    def case(family: str) -> Case:
        if family not in made:
            folder = made_folder(tmp_path_factory.mktemp(family) / "model", family, tokenizer=False)
            model = opened_reference(folder)
            made[family] = folder, truth_of_model(model, blocks_of(model), PROMPT)
        return made[family]

    return case


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", [name for name in MADE if name != "phi3-long"])
def test_every_family_agrees_block_by_block(family: str, cases: Callable[[str], Case]) -> None:
    folder, truth = cases(family)
    difference = compare(engine_of(folder), truth)
    assert difference.equal, difference


@pytest.mark.filterwarnings("ignore")
def test_longrope_follows_the_window_that_the_engine_is_opened_with(tmp_path: Path) -> None:
    """transformers takes the short divisors up to the original context, and the long ones beyond it."""
    import torch

    folder = made_folder(tmp_path / "model", "phi3-long", tokenizer=False)
    opened, reference = open_weights(folder), opened_reference(folder)
    rope = opened.config.rope
    assert rope is not None and (rope.rotated(16), rope.original_context) == (12, 64)
    for context, length in ((64, 60), (256, 100)):
        ids = np.random.default_rng(1).integers(0, 512, length).tolist()
        with torch.no_grad():
            theirs = reference(torch.tensor([ids])).logits[0].numpy()
        engine = Engine(opened.config, "f32", context=context)
        engine.load(opened.weights)
        ours = engine.logits([(engine.new_sequence(), ids)], rows="all")
        assert np.abs(ours - theirs).max() < 1e-3, context
        other = Engine(opened.config, "f32", context=320 - context)
        other.load(opened.weights)
        wrong = other.logits([(other.new_sequence(), ids[:60])], rows="all")
        assert np.abs(wrong - theirs[:60]).max() > 1e-2, "the two lists of divisors differ"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["gemma3", "gpt_neox", "mistral", "olmo2"])
def test_unequal_batches_and_chunks_give_the_same_bits(family: str, cases: Callable[[str], Case]) -> None:
    folder, _ = cases(family)
    ids = np.random.default_rng(5).integers(0, 500, 100).tolist()
    first = engine_of(folder, threads=1)
    with first.sequence() as sequence:
        expected = first.logits([(sequence, ids)], rows="all")
    for threads in (1, 2):
        engine = engine_of(folder, threads=threads)
        for chunk in (1, 7, 512):
            result = engine.forward([(engine.new_sequence(), ids)], rows="all", chunk=chunk).output
            assert np.array_equal(result, expected), (threads, chunk)
        batch = [(engine.new_sequence(), ids)]
        batch += [(engine.new_sequence(), ids[i : 60 + 2 * i]) for i in range(1, 5)]
        result = engine.forward(batch, rows="all").output
        assert np.array_equal(result[: len(ids)], expected), threads
        with_taps = engine.forward([(engine.new_sequence(), ids)], rows="all", taps=["*"])
        assert np.array_equal(with_taps.output, expected), threads
        prefix = engine.new_sequence()
        engine.logits([(prefix, ids[:70])])
        again = engine.fork(prefix)
        engine.truncate(again, 45)
        result = engine.forward([(again, ids[45:])], rows="all").output
        assert np.array_equal(result, expected[45:]), threads


@pytest.mark.filterwarnings("ignore")
def test_patterns_have_the_window(cases: Callable[[str], Case]) -> None:
    folder, truth = cases("gemma2")
    engine = engine_of(folder)
    result = engine.forward([(engine.new_sequence(), truth.prompt)], taps=["*.attn.pattern", "*.attn.scores"])
    for block, window in enumerate((16, PROMPT, 16, PROMPT)):
        pattern = result.taps[f"blocks.{block}.attn.pattern"]  # [T, H, S]
        rows, keys = np.indices((PROMPT, PROMPT))
        seen = (keys <= rows) & (keys > rows - window)
        assert np.array_equal(pattern[:, 0, :PROMPT] > 0, seen)
        np.testing.assert_allclose(pattern.sum(axis=2), 1, atol=1e-5)
        assert np.abs(result.taps[f"blocks.{block}.attn.scores"][:, 0, :PROMPT][seen]).max() < 3.0


# ---- mutants: each is one mistake that a port of these models makes ----


def windows(change: Callable[[int | None], int | None]) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: replace(
        config,
        attention=tuple(BlockAttention(change(block.window), block.rope) for block in config.attention),
    )


def ropes(change: Callable[[int, Rope | None], Rope | None]) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: replace(
        config,
        attention=tuple(
            BlockAttention(block.window, change(i, block.rope))
            for i, block in enumerate(config.block_attention)
        ),
    )


def bases_swapped(config: ModelConfig) -> ModelConfig:
    full, local = config.rope, config.attention[0].rope
    swapped = {full: local, local: full}
    return ropes(lambda _, rope: swapped[rope])(config)


def rope_with(**fields: Any) -> Callable[[ModelConfig], ModelConfig]:
    def change(_: int, rope: Rope | None) -> Rope | None:
        return None if rope is None else replace(rope, **fields)

    return ropes(change)


MUTANTS: dict[str, tuple[str, Callable[[ModelConfig], ModelConfig]]] = {
    "window one too wide": ("mistral", windows(lambda w: w + 1 if w else w)),
    "window one too narrow": ("gemma3", windows(lambda w: w - 1 if w else w)),
    "no window": ("gpt_neo", windows(lambda _: None)),
    "windows in the wrong blocks": ("gemma2", windows(lambda w: None if w else 16)),
    "a window everywhere": ("ministral", windows(lambda _: 16)),
    "bases swapped": ("gemma3", bases_swapped),
    "linear scaling of every block": ("gemma3", rope_with(scaling="linear", factor=8.0)),
    "no linear scaling": ("gemma3", rope_with(scaling="none")),
    "yarn without its magnitude": ("llama-yarn", rope_with(magnitude=1.0)),
    "yarn without its ramp": ("llama-yarn", rope_with(scaling="linear")),
    "yarn with other bounds": ("llama-yarn", rope_with(beta_slow=0.1)),
    "the usual scale": ("granite", lambda c: replace(c, attention_scale=None)),
    "scores divided": ("gpt_neo", lambda c: replace(c, attention_scale=None)),
    "scores not capped": ("gemma2", lambda c: replace(c, score_cap=None)),
    "logits not capped": ("gemma2", lambda c: replace(c, logit_cap=None)),
    "embedding not multiplied": ("granite", lambda c: replace(c, embedding_scale=1.0)),
    "Gemma's embedding not multiplied": ("gemma3", lambda c: replace(c, embedding_scale=1.0)),
    "residual not multiplied": ("granite", lambda c: replace(c, residual_scale=1.0)),
    "logits not divided": ("granite", lambda c: replace(c, logit_divisor=1.0)),
    "one after the other": ("gpt_neox", lambda c: replace(c, parallel=False)),
    "a block that rotates after all": ("smollm3", lambda c: ropes(lambda i, r: c.rope if i == 3 else r)(c)),
    "another block that does not rotate": ("smollm3", ropes(lambda i, r: None if i == 4 else r)),
    "another share": ("gpt_neox", rope_with(share=0.5)),
    "tanh in place of erf": ("gpt_neox", lambda c: replace(c, activation="gelu_tanh")),
    "SiLU in place of GELU": ("gemma2", lambda c: replace(c, activation="silu")),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: str, cases: Callable[[str], Case]) -> None:
    family, change = MUTANTS[mutant]
    folder, truth = cases(family)
    opened = open_weights(folder)
    difference = compare(loaded(change(opened.config), opened.weights), truth)
    assert not difference.equal, f"{mutant} was not seen: {difference}"


class Renamed:
    """Weights under other names, or changed, on their way to the engine."""

    def __init__(self, weights: Any, names: dict[str, str], change: float = 0.0) -> None:
        self.weights, self.names, self.change = weights, names, change

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        own = name
        for part, other in self.names.items():
            own = own.replace(part, other) if part in name else own
        kind, values = self.weights.stored(own)
        norm = values.ndim == 1 and "norm" in name + ("norm" if ".ln_" in name else "")
        return (kind, values + np.float32(self.change)) if norm and self.change else (kind, values)

    def stored_type(self, name: str) -> str:
        return str(self.weights.stored_type(name))


TENSOR_MUTANTS: dict[str, tuple[str, dict[str, str], float]] = {
    "norms in another order": ("gemma2", {".ln_1_post.": ".ln_2.", ".ln_2.": ".ln_1_post."}, 0.0),
    "gains without 1": ("gemma3", {}, -1.0),
    "the two norms after swapped": ("olmo2", {".ln_1_post.": ".ln_2_post."}, 0.0),
    "gate and up swapped": ("phi3", {".mlp.gate.": ".mlp.up.", ".mlp.up.": ".mlp.gate."}, 0.0),
    "q and v of a head swapped": ("gpt_neox", {".attn.q.": ".attn.v.", ".attn.v.": ".attn.q."}, 0.0),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mutant", TENSOR_MUTANTS)
def test_mutants_of_tensors_are_caught(mutant: str, cases: Callable[[str], Case]) -> None:
    family, names, change = TENSOR_MUTANTS[mutant]
    folder, truth = cases(family)
    opened = open_weights(folder)
    engine = Engine(opened.config, "f32")
    engine.load(Renamed(opened.weights, names, change))
    difference = compare(engine, truth)
    assert not difference.equal, f"{mutant} was not seen: {difference}"
