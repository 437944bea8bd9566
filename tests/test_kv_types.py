"""Keys and values in f32, f16 and 8 bits: the same promises, at depths of several ranges of positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import pophood
from pophood.errors import BadInput
from pophood.model.engine import Edit, Engine, instruction_sets
from pophood.model.memory import KV_TYPES, head_bytes, plan_memory
from tests.test_engine import Random
from tests.test_sequences import adapter
from tests.tiny import tiny_config
from tests.tiny_gguf import tiny_gguf

TYPES = [kv for kv in KV_TYPES if kv != "auto"]
IDS = [3 + 7 * i % 90 for i in range(530)]  # a range of 512 positions, and a part of another
SIZES = {"n_embd": 64, "n_head": 6, "n_kv_head": 2, "head_dim": 40, "n_inner": 96, "n_positions": 640}


def engine_with(kv: str, precision: str = "f32", threads: int = 2, head_dim: int = 40) -> Engine:
    """A small Llama whose heads have one whole group of 32 features and a part of another."""
    config = tiny_config("llama", **SIZES | {"head_dim": head_dim})
    engine = Engine(config, precision, threads=threads, kv=kv)
    engine.load(Random(config))
    return engine


def rows(engine: Engine, ids: list[int] = IDS, chunk: int = 512) -> NDArray[np.float32]:
    with engine.sequence() as sequence:
        return engine.forward([(sequence, ids)], rows="all", chunk=chunk).output


@pytest.mark.parametrize("kv", TYPES)
def test_bits_do_not_depend_on_threads_or_instruction_sets(kv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_with(kv, threads=1)
    expected = rows(engine).tobytes()
    for threads in (2, 3):
        engine.use_threads(threads)
        assert rows(engine).tobytes() == expected, threads
    for isa in instruction_sets():
        monkeypatch.setenv("POPHOOD_ISA", isa)
        assert rows(engine_with(kv)).tobytes() == expected, isa


@pytest.mark.parametrize("kv", TYPES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_rows_bits_depend_on_its_history_only(kv: str, data: st.DataObject) -> None:
    """Chunks, a neighbour in the batch, forks, truncation and an import leave the last rows as they are."""
    engine = ENGINES.setdefault(kv, engine_with(kv))
    length = data.draw(st.integers(2, len(IDS)))
    cut = data.draw(st.integers(1, length - 1))
    expected = rows(engine, IDS[:length])[cut:]
    first, neighbour = engine.new_sequence(), engine.new_sequence()
    engine.forward([(first, IDS[:cut])], output="none", chunk=data.draw(st.integers(17, 600)))
    way = data.draw(st.sampled_from(["chunks", "fork", "truncate", "import"]))
    if way == "fork":
        first = engine.fork(first)
    elif way == "truncate":
        engine.forward([(first, IDS[:7])], output="none")
        engine.truncate(first, cut)
    elif way == "import":
        first = engine.import_kv(engine.export_kv(first))
    beside = [(neighbour, IDS[: data.draw(st.integers(1, 40))])]
    chunk = data.draw(st.integers(17, 600))
    got = engine.forward([*beside, (first, IDS[cut:length])], rows="all", chunk=chunk).output
    assert got[len(beside[0][1]) :].tobytes() == expected.tobytes()
    for sequence in (first, neighbour):
        engine.drop(sequence)


ENGINES: dict[str, Engine] = {}


@pytest.mark.parametrize("head_dim", [16, 32, 40, 64])
def test_eight_bits_are_near_f32(head_dim: int) -> None:
    exact, half, eight = (rows(engine_with(kv, head_dim=head_dim)) for kv in ("f32", "f16", "q8"))
    scale = np.sqrt(np.mean(exact**2))
    far = [float(np.sqrt(np.mean((other - exact) ** 2)) / scale) for other in (half, eight)]
    assert 0 < far[0] < 3e-3
    assert 2 * far[0] < far[1] < 0.03


@pytest.mark.parametrize("head_dim", [16, 40, 64])
@pytest.mark.parametrize("kv", TYPES)
def test_the_plan_is_what_is_taken(kv: str, head_dim: int) -> None:
    engine = engine_with(kv, head_dim=head_dim)
    engine.forward([(engine.new_sequence(), IDS)], output="none")
    plan = plan_memory(engine.config, lambda name: "F32", kv=kv)
    assert (plan.kv_type, engine.kv) == (kv, kv)
    assert engine.cache_bytes == -(-len(IDS) // 32) * 32 * plan.cache_per_position
    assert head_bytes(64, "q8") == 68 and head_bytes(40, "q8") == 52 and head_bytes(40, "f16") == 96


def test_a_state_is_of_one_type() -> None:
    states = {}
    for kv in TYPES:
        engine = engine_with(kv)
        with engine.sequence() as sequence:
            engine.forward([(sequence, IDS[:40])], output="none")
            states[kv] = engine.export_kv(sequence)
            assert states[kv].geometry.endswith(f" in {kv}")
    assert states["q8"].data.nbytes == 40 * 2 * 2 * 2 * (40 + 2 * 2)  # layers, keys and values, heads
    for kv in TYPES:
        for other in set(TYPES) - {kv}:
            with pytest.raises(BadInput, match=rf"in {other}; wanted at most 640 of .* in {kv}$"):
                engine_with(kv).import_kv(states[other])


@pytest.mark.parametrize("kv", TYPES)
def test_readings_and_edits_see_the_stored_keys_and_values(kv: str) -> None:
    engine = engine_with(kv)
    ids = IDS[:300]
    batch = [(engine.new_sequence(), ids)]
    plain = engine.forward(batch, rows="all", taps=["blocks.*.attn.*"])
    assert plain.output.tobytes() == rows(engine, ids).tobytes(), "taps change nothing"
    taps = plain.taps
    pattern, q, keys = (taps[f"blocks.1.attn.{name}"] for name in ("pattern", "rot_q", "rot_k"))
    assert np.allclose(pattern.sum(axis=2), 1, atol=1e-5)
    scores = np.einsum("nhd,mhd->nhm", q, np.repeat(keys, 3, axis=1)) / np.sqrt(40)
    seen = np.tril(np.ones((300, 300), bool))[:, None, :]
    error = np.abs(np.where(seen, scores - np.where(seen, taps["blocks.1.attn.scores"], 0), 0)).max()
    bound = {"f32": 1e-5, "f16": 2e-3, "q8": 2e-2}[kv] * np.abs(scores).max()
    assert error < bound and (kv == "f32" or error > bound / 1000), "scores are those of the stored keys"
    back = Edit("blocks.1.attn.pattern", "replace", pattern, positions=range(len(ids)))
    batch = [(engine.new_sequence(), ids)]
    edited = engine.forward(batch, rows="all", edits=[back], taps=["blocks.1.attn.z"])
    z = taps["blocks.1.attn.z"]
    assert np.abs(edited.taps["blocks.1.attn.z"] - z).max() < 1e-5 * np.abs(z).max(), "the same values"
    part = Edit("blocks.0.attn.v", "scale", 0.0, positions=[3])
    other = engine.forward([(engine.new_sequence(), ids)], rows="all", edits=[part]).output
    assert other[:3].tobytes() == plain.output[:3].tobytes()
    assert not np.array_equal(other[3:], plain.output[3:])


@pytest.mark.parametrize("precision", ["f32", "q8"])
@pytest.mark.parametrize("kv", TYPES)
def test_sequences_with_adapters_share_a_batch(kv: str, precision: str) -> None:
    engine = engine_with(kv, precision)
    number = engine.add_adapter(adapter(engine, 1))
    alone = [engine.logits([(engine.new_sequence(chosen), IDS[:290])]) for chosen in ([], [number])]
    batch = [(engine.new_sequence(chosen), IDS[:290]) for chosen in ([], [number])]
    together = engine.logits(batch)
    assert together.tobytes() == np.concatenate(alone).tobytes()
    assert not np.array_equal(alone[0], alone[1])


def test_generation_with_eight_bits(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "model.gguf", "llama", quantised="Q8_0")
    lm, wide = (pophood.load(path, kv=kv) for kv in ("q8", "f16"))
    assert (lm.engine.kv, wide.engine.kv) == ("q8", "f16")
    runs = [[token.id for token in lm.stream("the cat", max_tokens=30, temperature=0)] for _ in range(2)]
    assert runs[0] == runs[1], "with a prefix used again"
    exact = lm.at("f32").engine
    assert (exact.kv, exact.precision) == ("f32", "f32")
