"""Adapters as GGUF: llama.cpp gives the logits of the merged weights, GPT-2's transposed ones included."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.adapters.adapter import Adapter
from pophood.adapters.gguf_adapter import read_adapter_gguf
from pophood.adapters.open import open_adapter
from pophood.config import ModelConfig
from pophood.errors import BadFile, PophoodError, Unsupported
from pophood.export.adapter_writers import write_adapter_gguf
from pophood.export.job import export_adapter
from pophood.export.merged import Merged
from pophood.model.bundle import open_bundle
from tests.export.adapters import logits, random_adapter, random_pair, same
from tests.llama import open_llama
from tests.tiny import tiny_config, tiny_gguf
from tests.tiny_gguf import llama3_divisors, write_key

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
    with pytest.raises(Unsupported, match="wanted an adapter of type lora for llama"):
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
    monkeypatch.setattr(
        "pophood.export.adapter_writers.permute_rope_rows", lambda values, head_dim: values[::-1].copy()
    )
    with pytest.raises(BadFile, match=r"the change of blocks\.0\.attn\.q differs"):
        export_adapter(config, adapter, tmp_path / "a.gguf")
    monkeypatch.setattr("pophood.export.adapter_writers.hf_name", lambda prefix, name: f"x.{name}")
    with pytest.raises(PophoodError):
        export_adapter(config, adapter, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def foreign(path: Path, config: ModelConfig, alpha: float, keys: dict[str, Any], **tensors: Any) -> Path:
    """Write an adapter of the first q as other converters do."""
    import gguf

    a, b = random_pair("blocks.0.attn.v", config.n_embd, config.n_kv_head * config.head_dim, 4)
    writer = gguf.GGUFWriter(path, config.architecture)
    for key, value in {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }.items():
        write_key(writer, key, value)
    for key, value in keys.items():
        write_key(writer, key, value)
    for name, values in {"blk.0.attn_v.weight.lora_a": a, "blk.0.attn_v.weight.lora_b": b, **tensors}.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_adapters_of_other_converters(tmp_path: Path) -> None:
    config = tiny_config("llama")
    assert config.rope is not None
    table = llama3_divisors(config.rope, config.head_dim)
    plain = read_adapter_gguf(foreign(tmp_path / "a.gguf", config, 8.0, {}), config)
    assert plain.scale == 2.0
    # llama.cpp #9114: the table of rotary positions was written into adapters of Llama 3.1
    for other in (
        foreign(tmp_path / "b.gguf", config, 8, {}),  # a whole number
        foreign(tmp_path / "c.gguf", config, 8.0, {}, **{"rope_freqs.weight": table}),
        foreign(tmp_path / "d.gguf", config, 8.0, {"adapter.lora.task_name": "x", "general.name": "y"}),
    ):
        assert same(read_adapter_gguf(other, config), plain)


@pytest.mark.parametrize(
    ("alpha", "keys", "tensors", "words"),
    [
        (8.0, {}, {"rope_freqs.weight": np.full(8, 2.0, np.float32)}, "changes 'rope_freqs.weight'"),
        (8.0, {}, {"blk.0.attn_norm.weight": np.ones(64, np.float32)}, "changes 'blk.0.attn_norm.weight'"),
        (8.0, {}, {"token_embd.weight.lora_a": np.ones((2, 64), np.float32)}, "changes 'token_embd.weight'"),
        (8.0, {"adapter.alora.invocation_tokens": [1, 2]}, {}, "adapter.alora.invocation_tokens"),
        ("8", {}, {}, "adapter.lora.alpha is '8'"),
        (float("inf"), {}, {}, "adapter.lora.alpha is inf"),
        (True, {}, {}, "adapter.lora.alpha is True"),
    ],
)
def test_what_other_converters_write_and_is_refused(
    tmp_path: Path, alpha: Any, keys: dict[str, Any], tensors: dict[str, Any], words: str
) -> None:
    config = tiny_config("llama")
    with pytest.raises((BadFile, Unsupported)) as caught:
        read_adapter_gguf(foreign(tmp_path / "a.gguf", config, alpha, keys, **tensors), config)
    assert words in str(caught.value)
