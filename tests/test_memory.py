"""The memory of a loaded model: packed weights, and no page of their file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.config import tensor_shapes
from pophood.model import engine as engine_module
from pophood.model.bundle import Weights, open_weights
from pophood.model.engine import Engine
from tests.needs import linux
from tests.tiny import tiny_folder, tiny_gguf

SIZES: dict[str, Any] = {
    "n_embd": 256,
    "n_layer": 6,
    "n_head": 4,
    "n_kv_head": 4,
    "head_dim": 64,
    "n_inner": 1024,
}


def resident(path: Path) -> int:
    """Return how many bytes of a file are mapped into this process at present."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


def totals(weights: Weights, config_names: list[str]) -> dict[str, float]:
    return {name: float(weights[name].sum(dtype=np.float64)) for name in config_names}


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "fused", "folder"])
def test_what_was_packed_leaves_memory_and_can_be_read_again(kind: str, tmp_path: Path) -> None:
    linux()
    if kind == "folder":  # GPT-2's q, k and v are columns of one tensor
        path = tiny_folder(tmp_path / "m", "gpt2", tokenizer=False, **SIZES)
        file = path / "model.safetensors"
    else:
        family = "gpt2" if kind == "fused" else "llama"
        quantised = "Q8_0" if kind == "Q8_0" else None
        path = file = tiny_gguf(tmp_path / "m.gguf", family, tokenizer=False, quantised=quantised, **SIZES)
    opened = open_weights(path)
    names = list(tensor_shapes(opened.config))
    before = totals(opened.weights, names)
    size = file.stat().st_size
    assert resident(file) > 0.9 * size > 4 << 20
    engine = Engine(opened.config)
    engine.load(opened.weights)
    assert resident(file) <= 2 << 20, "the header, which may lie in a huge page"
    assert totals(opened.weights, names) == before


def test_the_largest_tensors_are_packed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the last one is packed, the pages of its file are in memory beside all that was packed before."""
    monkeypatch.setattr(engine_module, "LARGE", 512 * 64)
    opened = open_weights(tiny_gguf(tmp_path / "m.gguf", "llama-untied", tokenizer=False))
    read: list[str] = []
    counted: list[tuple[int, int]] = []
    stored = Weights.stored

    def watched(self: Weights, name: str) -> Any:
        read.append(name)
        return stored(self, name)

    monkeypatch.setattr(Weights, "stored", watched)
    Engine(opened.config).load(opened.weights, lambda done, total: counted.append((done, total)))
    names = list(tensor_shapes(opened.config))
    assert read[:2] == ["embed.token", "output.weight"]
    assert read[2:] == [name for name in names if name not in read[:2]], "the others keep their order"
    total = opened.config.n_params
    assert counted[0] == (512 * 64, total) and counted[-1] == (total, total), "weights are counted"
    assert [done for done, _ in counted] == sorted({done for done, _ in counted})
