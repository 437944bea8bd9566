"""Matrices of several types that read one input: each gives the bits that it gives among its own type.

Files of blocks store some matrices in BF16, F16 or F32, and which ones is up to who made the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.model.bundle import OpenedWeights, open_weights
from pophood.model.engine import Edit, Engine, instruction_sets
from tests.tiny import tiny_gguf

KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_1", "Q6_K")
SIZES: dict[str, Any] = {"n_embd": 256, "n_head": 4, "head_dim": 64, "n_inner": 256}  # whole blocks of 256
IDS = [3 + 7 * i % 400 for i in range(75)]  # enough for tiles of activations
FIRST = "blocks.0."
SETS = instruction_sets()
CASES = [(SETS[-1], *pair) for pair in permutations(KINDS, 2)] + [
    (isa, *pair) for isa in SETS[:-1] for pair in permutations(("BF16", "Q8_0"))
]
Rows = dict[str, NDArray[np.float32]]
Files = dict[str, OpenedWeights]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One model in several files, each of which stores its matrices in one type."""
    folder = tmp_path_factory.mktemp("mixed")
    opened = {}
    for kind in KINDS:
        own: dict[str, Any] = {"quantised": kind} if kind.startswith("Q") else {"dtype": kind}
        opened[kind] = open_weights(tiny_gguf(folder / f"{kind}.gguf", "llama", **own, **SIZES))
    return opened


@dataclass(frozen=True, slots=True)
class Mixed:
    """Weights of several files: the first block's projections in the named types, the rest in F32."""

    files: Files
    kinds: dict[str, str]

    def _file(self, name: str) -> OpenedWeights:
        return self.files[self.kinds.get(name.removeprefix(FIRST).removesuffix(".weight"), "F32")]

    def stored(self, name: str) -> tuple[str, NDArray[np.generic]]:
        return self._file(name).weights.stored(name)

    def stored_type(self, name: str) -> str:
        return self._file(name).weights.stored_type(name)

    def blocks(self, name: str) -> NDArray[np.uint8]:
        return self._file(name).weights.blocks(name)


def loaded(
    files: Files, attention: tuple[str, str, str], gate: str, up: str, precision: str = "auto"
) -> Engine:
    q, k, v = attention
    kinds = {"attn.q": q, "attn.k": k, "attn.v": v, "mlp.gate": gate, "mlp.up": up}
    engine = Engine(files["F32"].config, precision, kv="f32")
    engine.load(Mixed(files, kinds))
    return engine


def projections(engine: Engine, *, chunk: int = 512, edits: tuple[Edit, ...] = ()) -> Rows:
    """Return what the first block's projections give, by name."""
    names = [FIRST + name for name in ("attn.q", "attn.k", "attn.v", "mlp.pre", "mlp.up")]
    with engine.sequence() as sequence:
        batch = [(sequence, IDS)]
        return engine.forward(batch, output="none", taps=names, edits=edits, chunk=chunk).taps


@pytest.mark.parametrize(("isa", "one", "other"), CASES)
def test_each_matrix_gives_the_bits_that_it_gives_alone(
    isa: str, one: str, other: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POPHOOD_ISA", isa)
    mixed = loaded(files, (one, other, one), one, other)
    alone = {kind: projections(loaded(files, (kind,) * 3, kind, kind)) for kind in (one, other)}
    # Attention comes in between: gate and up are compared behind the same one.
    before = {kind: projections(loaded(files, (one, other, one), kind, kind)) for kind in (one, other)}
    expected = {
        "attn.q": alone[one],
        "attn.k": alone[other],
        "attn.v": alone[one],
        "mlp.pre": before[one],
        "mlp.up": before[other],
    }
    unedited = Edit(FIRST + "attn.q", "scale", 1.0, positions=range(len(IDS)))
    for found in (
        projections(mixed),
        projections(mixed, chunk=1),
        projections(mixed, chunk=7),
        projections(mixed, edits=(unedited,)),
    ):
        for name, rows in expected.items():
            assert found[FIRST + name].tobytes() == rows[FIRST + name].tobytes(), name


def test_a_mixture_has_one_value_on_every_instruction_set(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BF16 is left out: it is multiplied in its own type where the processor can."""
    found = set()
    for isa in instruction_sets():
        monkeypatch.setenv("POPHOOD_ISA", isa)
        rows = projections(loaded(files, ("Q8_0", "F16", "Q6_K"), "F32", "Q4_1"))
        found.add(b"".join(rows[name].tobytes() for name in sorted(rows)))
    assert len(found) == 1


def test_a_mixture_is_near_the_same_matrices_in_f32(files: Files) -> None:
    attention, gate, up = ("Q8_0", "BF16", "F16"), "BF16", "Q8_0"
    rounded = projections(loaded(files, attention, gate, up))
    exact = projections(loaded(files, attention, gate, up, precision="f32"))
    for name, rows in rounded.items():
        assert np.abs(rows - exact[name]).max() < 0.03 * np.abs(exact[name]).max(), name
