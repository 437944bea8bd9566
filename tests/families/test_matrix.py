"""Every family times everything that computes with it, on small random models whose windows texts outgrow.

Forward pass and gradients beside transformers are in tests/parity and tests/train, exports in tests/export,
views in tests/look; here are precisions, stored blocks and their parts, adapters in a batch, taps, generation
and tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood.config import ModelConfig, Rope
from pophood.export.job import export_model
from pophood.export.merged import Merged
from pophood.look.math.first_block import rotate
from pophood.look.math.settle import settled
from pophood.model.bundle import OpenedWeights, open_bundle, open_weights
from pophood.model.engine import Engine
from pophood.taps import taps_of
from pophood.train.settings import LAST_BLOCKS
from pophood.train.tune import tune
from tests.export.adapters import logits as merged_logits
from tests.export.adapters import random_adapter
from tests.made_families import IN_GGUF, MADE, made_folder
from tests.tiny_gguf import split_gguf

IDS = (
    np.random.default_rng(7).integers(3, 500, 75).tolist()
)  # two blocks of keys and values, a part of a third
Floats = NDArray[np.float32]
Opened = Callable[[str], Path]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Each family's folder, made once."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = made_folder(tmp_path_factory.mktemp(family) / family, family)
        return made[family]

    return folder


def engine_of(opened: OpenedWeights, precision: str, threads: int = 1) -> Engine:
    engine = Engine(opened.config, precision, threads)
    engine.load(opened.weights)
    return engine


def rows(engine: Engine, chunk: int = 512) -> Floats:
    return engine.forward([(engine.new_sequence(), IDS)], rows="all", chunk=chunk).output


def distance(ours: Floats, theirs: Floats) -> float:
    """Return the root mean square of the difference relative to that of `theirs`."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2)))


@pytest.mark.parametrize("family", MADE)
def test_precisions_and_batches(family: str, folders: Opened) -> None:
    """At every precision the numbers are near f32, and the bits depend on a row's history only."""
    opened = open_weights(folders(family))
    exact = rows(engine_of(opened, "f32"))
    for precision, near in (("f32", 0.0), ("q8", 0.3), ("q4", 1.0)):
        engine = engine_of(opened, precision, threads=2)
        expected = rows(engine)
        assert distance(expected, exact) <= near, precision
        assert np.array_equal(rows(engine, chunk=7), expected), precision
        others = [(engine.new_sequence(), IDS[i:40]) for i in range(1, 4)]
        batch = engine.forward([*others, (engine.new_sequence(), IDS)], rows="all").output
        assert np.array_equal(batch[-len(IDS) :], expected), precision
        prefix = engine.new_sequence()
        engine.forward([(prefix, IDS[:50])], output="none")
        rest = engine.forward([(engine.fork(prefix), IDS[50:])], rows="all").output
        assert np.array_equal(rest, expected[50:]), precision


@pytest.mark.parametrize("family", IN_GGUF)
def test_stored_blocks_in_one_file_and_in_parts(family: str, folders: Opened, tmp_path: Path) -> None:
    bundle = open_bundle(folders(family))
    for kind in ("q8_0", "q4_0"):
        export_model(bundle, tmp_path / f"{kind}.gguf", kind, threads=1)
        whole = open_weights(tmp_path / f"{kind}.gguf")
        stored = rows(engine_of(whole, "auto"))
        assert 0 < distance(stored, rows(engine_of(whole, "f32"))) < 0.3, kind
        parts = split_gguf(tmp_path / f"{kind}.gguf", tmp_path / kind, tensors=7)
        split = open_bundle(parts[1])
        assert len(parts) > 2 and split.config == whole.config
        assert np.array_equal(rows(engine_of(open_weights(parts[0]), "auto")), stored), kind
        assert split.tokenizer.encode("The sun sets") == bundle.tokenizer.encode("The sun sets")


@pytest.mark.parametrize("family", MADE)
def test_adapters_in_a_batch_and_merged(family: str, folders: Opened, tmp_path: Path) -> None:
    """Sequences of one call have adapters of their own, and give what merged weights give."""
    opened = open_weights(folders(family))
    adapter = random_adapter(opened.config)
    merged = merged_logits(opened.config, Merged(opened.config, opened.weights, [(adapter, 1.0)]), IDS)
    engine = engine_of(opened, "f32")
    plain = rows(engine)
    number = engine.add_adapter(adapter)
    adapted = engine.forward([(engine.new_sequence([number]), IDS)], rows="all").output
    assert np.abs(adapted - merged).max() < 1e-3 and np.abs(adapted - plain).max() > 0.01
    both = [(engine.new_sequence(), IDS), (engine.new_sequence([number]), IDS)]
    batch = engine.forward(both, rows="all").output
    assert np.array_equal(batch[: len(IDS)], plain)
    assert np.array_equal(batch[len(IDS) :], adapted)
    export_model(open_bundle(folders(family)), tmp_path / "merged", adapters=[(adapter, 1.0)], threads=1)
    assert np.abs(rows(engine_of(open_weights(tmp_path / "merged"), "f32")) - merged).max() < 1e-5


def rotated(heads: Floats, rope: Rope | None, config: ModelConfig) -> Floats:
    if rope is None:
        return heads
    frequencies = rope.frequencies(config.head_dim, config.n_positions).astype(np.float64)
    whole = heads.astype(np.float64)
    turned: Floats = rotate(whole, np.arange(len(heads)), frequencies, rope.magnitude).astype(np.float32)
    return turned


def normed(heads: Floats, gain: Floats | None, config: ModelConfig) -> Floats:
    if gain is None:
        return heads
    flat = heads.reshape(len(heads), -1, len(gain)).astype(np.float64)
    flat = flat / np.sqrt(np.square(flat).mean(axis=-1, keepdims=True) + config.norm_eps) * gain
    scaled: Floats = flat.reshape(heads.shape).astype(np.float32)
    return scaled


@pytest.mark.parametrize("family", MADE)
def test_taps_are_what_their_page_says(family: str, folders: Opened) -> None:
    lm = pophood.load(folders(family), threads=1)
    config, trace = lm.config, lm.trace(IDS, ["*"])
    assert list(trace.arrays) == list(taps_of(config))
    for i, block in enumerate(config.block_attention):
        at = f"blocks.{i}."
        middle = trace[at + "resid_pre"] + trace[at + "attn.out"]
        if not config.parallel:
            assert np.abs(middle - trace[at + "resid_mid"]).max() < 1e-5
        assert np.abs(middle + trace[at + "mlp.out"] - trace[at + "resid_post"]).max() < 2e-5
        if config.rope is not None:
            for name in ("q", "k"):
                gain = lm.weights[f"{at}attn.{name}_norm.weight"] if config.qk_norm else None
                turned = rotated(normed(trace[f"{at}attn.{name}"], gain, config), block.rope, config)
                assert np.abs(turned - trace[f"{at}attn.rot_{name}"]).max() < 1e-4, (i, name)
        summed = trace[at + "attn.result"].sum(axis=1, dtype=np.float64)
        bias = lm.weights.get(f"{at}attn.out.bias")
        out = settled(lm.weights, config, i, "attn", summed if bias is None else summed + bias)
        assert np.abs(out - trace[at + "attn.out"]).max() < 1e-4
        queries, keys = np.indices((len(IDS), len(IDS)))
        hidden = (keys > queries) | (keys <= queries - (block.window or len(IDS)))
        assert np.array_equal(np.isneginf(trace[at + "attn.scores"][0]), hidden)
    tokens = trace["embed.token"] / np.float32(config.embedding_scale)
    assert np.allclose(tokens, lm.weights["embed.token"][IDS], rtol=1e-6)
    raw = trace["final_norm"] @ lm.weights["embed.token" if config.tied_output else "output.weight"].T
    raw = raw / np.float32(config.logit_divisor)
    capped = raw if config.logit_cap is None else config.logit_cap * np.tanh(raw / config.logit_cap)
    assert np.abs(capped - trace["logits"]).max() < 1e-4


@pytest.mark.parametrize("family", MADE)
def test_texts_are_continued_alone_and_together(family: str, folders: Opened) -> None:
    """Greedy texts are those of whole forward passes, beyond the windows and in a batch."""
    lm = pophood.load(folders(family), threads=1)
    prompt = IDS[:30]
    alone = lm.generate(prompt, max_tokens=12, temperature=0, stop_ids=()).tokens
    ids = [token.id for token in alone]
    again = lm.logits([*prompt, *ids[:-1]])[len(prompt) - 1 :].argmax(axis=1)
    assert ids == again.tolist()
    together = lm.batch([prompt, IDS[5:25]], max_tokens=12, temperature=0, stop_ids=())
    assert [token.id for token in together[0].tokens] == ids


# One method for each family in the default suite, all of them in the full one.
METHODS = ("lora", "full", "last")
TUNED = [
    pytest.param(family, method, marks=() if METHODS[i % 3] == method else pytest.mark.full)
    for i, family in enumerate(MADE)
    for method in METHODS
]
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.mark.parametrize(("family", "method"), TUNED)
def test_tuning_and_what_it_writes(family: str, method: str, folders: Opened, tmp_path: Path) -> None:
    """A result of every method, in float32 and bfloat16, opens and says something else than before."""
    (tmp_path / "notes.txt").write_text(TEXT, encoding="utf-8")
    folder = folders(family)
    plain = pophood.load(folder, threads=1).logits(IDS)
    for precision in ("f32", "bf16"):
        out = tmp_path / precision
        run = tune(
            pophood.load(folder, threads=1),
            tmp_path / "notes.txt",
            out,
            method=method,
            steps=2,
            length=48,
            batch_size=2,
            learning_rate=5e-3,
            precision=precision,
            last_blocks=1 if method == "last" else LAST_BLOCKS,
        )
        for _ in run:
            pass
        place, adapters = (folder, [out]) if method == "lora" else (out, [])
        tuned = pophood.load(place, adapters=adapters, threads=1)
        assert 1e-5 < distance(tuned.logits(IDS), plain) < 2, precision
