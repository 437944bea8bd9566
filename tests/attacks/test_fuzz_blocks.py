"""Mutated models of every stored type: each loads and computes finite numbers, or is refused in one line.

5,000 over all types in `make test`; POPHOOD_FUZZ of each, 5,000, in `make test-full`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.formats import open_gguf
from pophood.formats.quant import BLOCKS
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine
from pophood.model.memory import COMPUTED_BLOCKS
from tests.attacks.mutate import Field, Seed, Watch, fuzz_count, mutations
from tests.tiny import tiny_gguf

SIZES = {"n_layer": 1, "n_embd": 64, "n_inner": 64, "vocab_size": 40}
WIDE = {
    "n_layer": 1,
    "n_embd": 256,
    "n_head": 4,
    "n_kv_head": 1,
    "head_dim": 64,
    "n_inner": 256,
    "vocab_size": 40,
}
IDS = [3, 20, 7]


def seed_of(kind: str, path: Path) -> Seed:
    """Make a model in one type; its fields are the header, cut into words, and the tensors."""
    plain = kind in ("F32", "F16", "BF16")
    sizes = WIDE if BLOCKS[kind].elements == 256 else SIZES
    tiny_gguf(path, "llama", tokenizer=False, **{"dtype" if plain else "quantised": kind}, **sizes)  # type: ignore[arg-type]
    data = path.read_bytes()
    with open_gguf(path) as file:
        stored = sum(-(-tensor.nbytes // 32) * 32 for tensor in file.tensors.values())
    start = len(data) - stored
    header = [Field(at, 8, "number") for at in range(24, start - 8, 8)]
    return Seed(kind, data, (*header, *(Field(at, 32, "data") for at in range(start, len(data) - 32, 32))))


def compute(path: Path) -> None:
    """Load a file and compute; what is computed as stored has the stored values, NaN included."""
    opened = open_weights(path)
    engine = Engine(opened.config)
    engine.load(opened.weights)
    sequence = engine.new_sequence()
    tapped = engine.forward([(sequence, IDS)], rows="all", taps=["embed.token"])
    assert np.isfinite(tapped.output).all()
    if opened.weights.stored_type("embed.token") in ("F32", "F16", "BF16", *COMPUTED_BLOCKS):
        assert np.array_equal(tapped.taps["embed.token"], opened.weights["embed.token"][IDS])


@pytest.mark.timeout(1_800)
def test_mutated_models_of_every_stored_type(tmp_path: Path, record_property: Any) -> None:
    seeds = [seed_of(kind, tmp_path / f"{kind}.gguf") for kind in BLOCKS]
    count = fuzz_count() * len(seeds) if "POPHOOD_FUZZ" in os.environ else 5_000
    watch = Watch()
    path = tmp_path / "case.gguf"
    for case in mutations(seeds, count, run="blocks"):
        path.unlink(missing_ok=True)
        path.write_bytes(case.data)
        watch.attempt(case, partial(compute, path))
    assert watch.accepted > count // 20 and watch.refused["BadFile"] > count // 20
    assert watch.refused["EngineError"] > 0, "no mutation made a number that is not finite"
    record_property("fuzz", watch.summary("blocks"))
    print(watch.summary("blocks"))
