"""Adapters as GGUF: llama.cpp gives the logits of the merged weights, GPT-2's transposed ones included."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.adapter import Adapter
from pophood.bundle import open_bundle
from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.export.gguf_adapter import read_adapter_gguf, write_adapter_gguf
from pophood.export.job import export_adapter, open_adapter
from pophood.export.merged import Merged
from tests.export.adapters import logits, random_adapter, same
from tests.llama import open_llama
from tests.tiny import tiny_config, tiny_gguf

IDS = [1, 2, 3, 4, 5, 77, 300]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 everywhere": ("gpt2", {"scale": 2.0, "alpha": 8.0}),
    "gpt2 q and v": ("gpt2", {"kinds": ("attn.q", "attn.v")}),
    "gpt2 rsLoRA": ("gpt2", {"scale": 6.0 / math.sqrt(4)}),
    "llama everywhere": ("llama", {}),
    "llama odd scale": ("llama-untied", {"scale": 1.3, "kinds": ("attn.k", "mlp.down"), "blocks": (0, 1)}),
    "qwen2": ("qwen2", {"kinds": ("attn.q", "attn.k", "mlp.gate")}),
    "qwen3": ("qwen3", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_adds_what_we_fold(tmp_path: Path, case: str) -> None:
    pytest.importorskip("llama_cpp", reason="needs Python package: llama-cpp-python")
    family, choices = CASES[case]
    bundle = open_bundle(tiny_gguf(tmp_path / "base.gguf", family))
    adapter = random_adapter(bundle.config, **choices)
    export_adapter(bundle.config, adapter, tmp_path / "tuned.gguf")
    model = open_llama(
        tmp_path / "base.gguf",
        n_ctx=64,
        logits_all=True,
        lora_path=str(tmp_path / "tuned.gguf"),
        lora_scale=1.0,
    )
    try:
        model.eval(IDS)
        theirs = np.array(model.scores[: len(IDS)])
    finally:
        model.close()
    ours = logits(bundle.config, Merged(bundle.config, bundle.weights, [(adapter, 1.0)]), IDS)
    assert np.abs(theirs - ours).max() < 0.05  # keys and values at 16 bits
    assert np.abs(logits(bundle.config, bundle.weights, IDS) - ours).max() > 0.5
    back = open_adapter(tmp_path / "tuned.gguf", bundle.config)
    assert back.targets.keys() == adapter.targets.keys()
    mine = logits(bundle.config, Merged(bundle.config, bundle.weights, [(back, 1.0)]), IDS)
    assert np.abs(mine - ours).max() < 1e-4
    if case not in ("gpt2 rsLoRA", "gpt2 q and v", "llama odd scale"):
        assert same(Adapter(adapter.name, **numbers(adapter)), Adapter(adapter.name, **numbers(back))) == (
            family != "gpt2"
        )


def numbers(adapter: Adapter) -> dict[str, Any]:
    return {name: getattr(adapter, name) for name in ("rank", "alpha", "scale", "targets")}


def test_what_is_no_adapter_for_this_model(tmp_path: Path) -> None:
    config = tiny_config("llama")
    base = tiny_gguf(tmp_path / "base.gguf", "llama")
    with pytest.raises(Unsupported, match="wanted an adapter, of type lora, for a llama"):
        read_adapter_gguf(base, config)
    write_adapter_gguf(tmp_path / "a.gguf", random_adapter(config), config)
    for other in (tiny_config("qwen2"), tiny_config("llama", n_embd=32, head_dim=8)):
        with pytest.raises(Unsupported, match=r"wanted an adapter|the model's is"):
            read_adapter_gguf(tmp_path / "a.gguf", other)
    with pytest.raises(Unsupported, match="lora_a and lora_b"):
        read_adapter_gguf(tmp_path / "a.gguf", tiny_config("llama", n_layer=1))


@pytest.mark.parametrize("name", ["tuned", "tuned.gguf"])
def test_an_untrained_adapter_comes_back(tmp_path: Path, name: str) -> None:
    config = tiny_config("gpt2")
    adapter = random_adapter(config)
    zero = {target: (a, np.zeros_like(b)) for target, (a, b) in adapter.targets.items()}
    receipt = export_adapter(config, Adapter("new", 4, 8.0, 2.0, zero), tmp_path / name)
    assert receipt.proof is None
    back = open_adapter(tmp_path / name, config)
    assert back.norms() == dict.fromkeys(adapter.targets, 0.0)


def test_a_spoiled_adapter_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("llama")
    adapter = random_adapter(config)
    monkeypatch.setattr("pophood.export.gguf_adapter.together", lambda values, head_dim: values[::-1].copy())
    with pytest.raises(BadFile, match=r"the change of blocks\.0\.attn\.q is another"):
        export_adapter(config, adapter, tmp_path / "a.gguf")
    monkeypatch.setattr("pophood.export.peft.hf_name", lambda prefix, name: f"x.{name}")
    with pytest.raises(PophoodError):
        export_adapter(config, adapter, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
