"""Blocks that are computed as stored, and matrices quantised on request: the same promises as in f32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood.config import tensor_shapes
from pophood.errors import Unsupported
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine, instruction_sets
from pophood.model.machine import multiplies_bf16
from pophood.model.memory import COMPUTED_BLOCKS, WIDENED_BLOCKS, computed_type, plan_memory
from tests.tiny import tiny_gguf

IDS = [3 + 7 * i % 400 for i in range(75)]  # two blocks of keys and values, and a part of a third
Opened = Callable[..., Engine]


ALL = (*COMPUTED_BLOCKS, *WIDENED_BLOCKS, "F32 as q8", "F32 as q4")
FILES = [("llama", kind) for kind in ALL] + [
    (family, kind) for family in ("gpt2", "qwen3") for kind in ("Q8_0", "Q4_1", "Q6_K", "F32 as q8")
]


@pytest.fixture(scope="module", params=FILES, ids=lambda file: " ".join(file))
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A function that loads one file into a new engine; the file stores one type of blocks, or F32."""
    family, stored = request.param
    _, _, precision = stored.partition(" as ")
    kind = None if precision else stored
    path = tiny_gguf(tmp_path_factory.mktemp("q") / "model.gguf", family, quantised=kind)

    def load(**options: object) -> Engine:
        opened = open_weights(path)
        engine = Engine(opened.config, **{"precision": precision or "auto"} | options)  # type: ignore[arg-type]
        engine.load(opened.weights)
        return engine

    return load


def rows(engine: Engine, *, chunk: int = 512, batch: int = 1) -> NDArray[np.float32]:
    """Return the logits of all positions of the last of `batch` equal sequences, computed together."""
    sequences = [(engine.new_sequence(), IDS) for _ in range(batch)]
    output = engine.forward(sequences, rows="all", chunk=chunk).output
    return output[-len(IDS) :]


def distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Return the root mean square of the difference relative to that of `theirs`."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2)))


def test_the_numbers_are_near_those_of_f32(opened: Opened) -> None:
    engine = opened()
    ours, exact = rows(engine), rows(opened(precision="f32"))
    assert not np.array_equal(ours, exact)
    assert distance(ours, exact) < (0.5 if engine.precision == "q4" else 0.1)  # there weights are rounded too


def test_a_rows_bits_depend_on_its_history_only(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    expected = rows(engine).tobytes()
    for chunk in (1, 7):
        assert rows(engine, chunk=chunk).tobytes() == expected, "chunks"
    for batch in (3, 8):
        assert rows(engine, batch=batch).tobytes() == expected, "batches"
    first = engine.new_sequence()
    engine.forward([(first, IDS[:40])], output="none")
    again = engine.forward([(engine.fork(first), IDS[40:])], rows="all").output
    assert again.tobytes() == np.frombuffer(expected, np.float32).reshape(len(IDS), -1)[40:].tobytes(), (
        "prefix"
    )
    tapped = engine.forward([(engine.new_sequence(), IDS)], rows="all", taps=["*"])
    assert tapped.output.tobytes() == expected, "taps"
    for threads in (2, 3):
        assert rows(opened(threads=threads)).tobytes() == expected, "threads"
        engine.use_threads(threads)
        assert rows(engine).tobytes() == expected, "threads of the same engine"
    for isa in instruction_sets():
        monkeypatch.setenv("POPHOOD_ISA", isa)
        assert rows(opened()).tobytes() == expected, isa


def test_each_heads_part_adds_up_to_the_projection(opened: Opened) -> None:
    engine = opened()
    taps = engine.forward(
        [(engine.new_sequence(), IDS)], taps=["blocks.*.attn.result", "blocks.*.attn.out"]
    ).taps
    for layer in range(engine.config.n_layer):
        parts, whole = taps[f"blocks.{layer}.attn.result"].sum(axis=1), taps[f"blocks.{layer}.attn.out"]
        bias = np.median(whole - parts, axis=0)  # the projection's bias belongs to no head
        assert np.abs(parts + bias - whole).max() < 1e-5 * np.abs(whole).max()


def test_the_plan_is_what_is_taken(opened: Opened) -> None:
    engine, exact = opened(), opened(precision="f32")
    assert engine.weight_bytes < exact.weight_bytes / 2
    engine.forward([(engine.new_sequence(), IDS)])
    exact.forward([(exact.new_sequence(), IDS)])
    assert engine.kv == "f16" and exact.kv == "f32" and 2 * engine.cache_bytes == exact.cache_bytes
    wide = opened(kv="f32")
    assert 0 < distance(rows(wide), rows(engine)) < 0.03


@pytest.mark.parametrize("kind", [*COMPUTED_BLOCKS, *WIDENED_BLOCKS])
def test_memory_is_planned_for_blocks(kind: str, tmp_path: Path) -> None:
    opened = open_weights(tiny_gguf(tmp_path / "model.gguf", "llama", quantised=kind))
    engine = Engine(opened.config)
    engine.load(opened.weights)
    plan = plan_memory(opened.config, opened.weights.stored_type, precision="auto")
    assert abs(plan.weights - engine.weight_bytes) < 0.02 * plan.weights


def test_memory_is_planned_for_inputs_in_the_form_that_matrices_read(tmp_path: Path) -> None:
    """512 tokens of the widest input: 4 bytes per value for f32, 1.5 with scales and sums for blocks."""
    plans = []
    for kind in (None, "Q8_0"):
        opened = open_weights(tiny_gguf(tmp_path / f"{kind}.gguf", "llama", quantised=kind))
        plans.append(plan_memory(opened.config, opened.weights.stored_type, precision="auto").activations)
    assert plans[0] - plans[1] == 512 * opened.config.n_inner * 2.5


@pytest.mark.parametrize("kind", COMPUTED_BLOCKS)
def test_stored_values_are_exact(kind: str, tmp_path: Path) -> None:
    """A token's embedding is a row of a packed matrix: it has the bits that ggml decodes from the block."""
    opened = open_weights(tiny_gguf(tmp_path / "model.gguf", "llama", quantised=kind))
    engine = Engine(opened.config)
    engine.load(opened.weights)
    assert computed_type("embed.token", opened.weights["embed.token"].shape, kind, "auto") == kind
    tapped = engine.forward([(engine.new_sequence(), IDS)], output="none", taps=["embed.token"]).taps
    assert tapped["embed.token"].tobytes() == opened.weights["embed.token"][IDS].tobytes()


def test_q8_is_what_ggml_makes_of_the_same_weights(tmp_path: Path) -> None:
    """Quantising F32 on loading gives the bits of the published Q8_0."""
    plain = open_weights(tiny_gguf(tmp_path / "plain.gguf", "llama"))
    names = {name for name, shape in tensor_shapes(plain.config).items() if len(shape) == 2}

    class Quantised:
        stored = plain.weights.stored

        @staticmethod
        def stored_type(name: str) -> str:
            return "Q8_0" if name in names else "F32"

        @staticmethod
        def blocks(name: str) -> NDArray[np.uint8]:
            values = np.ascontiguousarray(plain.weights[name])
            return np.asarray(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0), np.uint8)

    ours, theirs = Engine(plain.config, "q8"), Engine(plain.config, "auto")
    ours.load(plain.weights)
    theirs.load(Quantised())
    assert rows(ours).tobytes() == rows(theirs).tobytes()


def test_what_is_stored_unquantised_is_not_quantised_unasked(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "plain.gguf", "llama")
    auto, exact = (pophood.load(path, precision=precision) for precision in ("auto", "f32"))
    assert rows(auto.engine).tobytes() == rows(exact.engine).tobytes() and auto.engine.kv == "f32"


BFLOAT16 = pytest.mark.skipif(not multiplies_bf16(), reason="this processor multiplies no bfloat16")


@BFLOAT16
@pytest.mark.parametrize("isa", ["avx512bf16", "amx"])
def test_bfloat16_weights_are_multiplied_in_it(
    isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows keep their bits over threads, batches and chunks, and stay near those of f32."""
    if isa not in instruction_sets():
        pytest.skip(f"this processor has no {isa}")
    monkeypatch.setenv("POPHOOD_ISA", isa)
    path = tiny_gguf(tmp_path / "model.gguf", "qwen2", dtype="BF16", n_embd=96, n_inner=130)
    auto, exact = (pophood.load(path, precision=precision).engine for precision in ("auto", "f32"))
    assert (auto.precision, auto.kv, exact.precision, exact.kv) == ("auto", "f16", "f32", "f32")
    expected = rows(auto)
    assert 0 < distance(expected, rows(exact)) < 0.02
    assert rows(auto, chunk=1).tobytes() == rows(auto, chunk=7).tobytes() == expected.tobytes()
    assert rows(auto, batch=8).tobytes() == expected.tobytes()
    auto.use_threads(3)
    assert rows(auto).tobytes() == expected.tobytes()
    tapped = auto.forward([(auto.new_sequence(), IDS)], rows="all", taps=["*"])
    assert tapped.output.tobytes() == expected.tobytes()
    heads, out = (tapped.taps[f"blocks.0.attn.{name}"] for name in ("result", "out"))
    assert np.abs(heads.sum(axis=1) - out).max() < 1e-5 * np.abs(out).max()
    monkeypatch.setenv("POPHOOD_ISA", "avx512vnni")
    assert rows(pophood.load(path).engine).tobytes() == rows(exact).tobytes(), "f32 without such products"


def test_evaluations_decode_the_blocks_and_keep_wide_keys(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "model.gguf", "llama", quantised="Q4_0")
    exact = pophood.load(path, precision="f32")
    assert exact.at("f32") is exact
    for other in (pophood.load(path), pophood.load(path, precision="f32", kv="f16")):
        assert rows(other.engine).tobytes() != rows(exact.engine).tobytes()
        assert rows(other.at("f32").engine).tobytes() == rows(exact.engine).tobytes()


def test_an_adapter_works_beside_blocks(opened: Opened) -> None:
    from pophood.adapters.adapter import Adapter

    engine = opened()
    before = rows(engine)
    shapes = tensor_shapes(engine.config)
    random = np.random.default_rng(5)
    targets = {}
    for part in ("attn.q", "mlp.down"):
        out, inputs = shapes[f"blocks.1.{part}.weight"]
        a, b = (random.standard_normal(shape).astype(np.float32) * 0.1 for shape in ((4, inputs), (out, 4)))
        targets[f"blocks.1.{part}"] = (a, b)
    engine.use_adapters([(Adapter("test", rank=4, alpha=4.0, scale=1.0, targets=targets), 1.0)])
    changed = rows(engine)
    assert np.abs(changed - before).max() > 1e-3
    engine.use_adapters([])
    assert rows(engine).tobytes() == before.tobytes()


def test_a_poisoned_scale_is_an_error_not_a_number(tmp_path: Path) -> None:
    opened = open_weights(tiny_gguf(tmp_path / "model.gguf", "llama", quantised="Q8_0"))
    blocks = opened.weights.blocks("blocks.0.mlp.down.weight").copy()
    blocks[0, :2] = (0x00, 0x7E)  # NaN in f16

    class Poisoned:
        stored, stored_type = opened.weights.stored, opened.weights.stored_type

        @staticmethod
        def blocks(name: str) -> NDArray[np.uint8]:
            return blocks if name == "blocks.0.mlp.down.weight" else opened.weights.blocks(name)

    engine = Engine(opened.config)
    engine.load(Poisoned())
    with pytest.raises(pophood.errors.EngineError, match="not finite"):
        rows(engine)


def test_unknown_precisions_are_refused() -> None:
    from tests.tiny import tiny_config

    with pytest.raises(Unsupported, match=r"keys and values 'q4': choose one of auto, f32, f16, q8"):
        Engine(tiny_config("llama"), kv="q4")
