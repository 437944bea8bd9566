"""Writes the models of tests/tiny_values.py as Hugging Face folders, complete like real ones."""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pophood.config import ModelConfig, Rope, tensor_shapes
from tests.tiny_values import Entry, Floats, Values, narrowed, style_of, tiny_config
from tests.tiny_vocabulary import write_tokenizer

Spelling = Literal["old", "new"]  # config.json as transformers 4 ("old") or 5 ("new") writes it

_HF_GPT2 = {
    "embed.token": "wte.weight",
    "embed.position": "wpe.weight",
    ".attn.q.": ".attn.c_attn.",
    ".attn.out.": ".attn.c_proj.",
    ".mlp.up.": ".mlp.c_fc.",
    ".mlp.down.": ".mlp.c_proj.",
    "final_norm.": "ln_f.",
    "blocks.": "h.",
}
_HF_LLAMA = {
    "embed.token": "embed_tokens.weight",
    ".attn.q_norm.": ".self_attn.q_norm.",
    ".attn.k_norm.": ".self_attn.k_norm.",
    ".attn.q.": ".self_attn.q_proj.",
    ".attn.k.": ".self_attn.k_proj.",
    ".attn.v.": ".self_attn.v_proj.",
    ".attn.out.": ".self_attn.o_proj.",
    ".mlp.gate.": ".mlp.gate_proj.",
    ".mlp.up.": ".mlp.up_proj.",
    ".mlp.down.": ".mlp.down_proj.",
    ".ln_1.": ".input_layernorm.",
    ".ln_2.": ".post_attention_layernorm.",
    "final_norm.": "norm.",
    "blocks.": "layers.",
}


def tiny_folder(
    path: Path,
    family: str,
    *,
    seed: int = 0,
    dtype: str = "F32",
    quantised: str | None = None,
    spelling: Spelling = "new",
    prefix: bool = True,
    ignored: bool = True,
    shards: int = 1,
    tokenizer: bool = True,
    keys: dict[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write a model folder and return it: `tiny_folder(tmp_path / "m", "qwen3", n_layer=1)`.

    `quantised`: see Values; `keys` are added to config.json; `overrides` are fields of ModelConfig.
    """
    config = tiny_config(family, **overrides)
    path.mkdir(parents=True, exist_ok=True)
    config_json = hf_config(config, dtype, spelling) | (keys or {})
    (path / "config.json").write_text(json.dumps(config_json, indent=2), encoding="utf-8")
    entries = hf_entries(config, Values(config, seed, dtype, quantised), prefix)
    entries += _hf_ignored(config, prefix) if ignored else []
    if shards == 1:
        write_safetensors(path / "model.safetensors", entries, dtype)
    else:
        names = [f"model-{k + 1:05}-of-{shards:05}.safetensors" for k in range(shards)]
        for k, name in enumerate(names):
            write_safetensors(path / name, entries[k::shards], dtype)
        weight_map = {entry.name: names[i % shards] for i, entry in enumerate(entries)}
        index = json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map})
        (path / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    if tokenizer:
        write_tokenizer(path, style_of(config), config.vocab_size)
    return path


def hf_config(config: ModelConfig, dtype: str = "F32", spelling: Spelling = "new") -> dict[str, Any]:
    """Return the configuration as transformers 4 ("old") or 5 ("new") writes it."""
    named = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    shared: dict[str, Any] = {
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_output,
        "use_cache": True,
        "torch_dtype" if spelling == "old" else "dtype": named,
        "transformers_version": "4.40.1" if spelling == "old" else "5.23.0",
    }
    if config.architecture == "gpt2":
        old = {"n_ctx": config.n_positions, "task_specific_params": {"text-generation": {"do_sample": True}}}
        return shared | {
            "architectures": ["GPT2LMHeadModel"],
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "n_inner": None if config.n_inner == 4 * config.n_embd else config.n_inner,
            "n_positions": config.n_positions,
            "activation_function": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
            "layer_norm_epsilon": config.norm_eps,
            "attn_pdrop": 0.1,
            "summary_type": "cls_index",
            **(old if spelling == "old" else {}),
        }
    assert config.rope is not None
    name = config.architecture
    qwen = {"use_sliding_window": False, "sliding_window": 32, "max_window_layers": config.n_layer}
    own = {
        "llama": {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias, "pretraining_tp": 1},
        "qwen2": qwen,
        "qwen3": qwen | {"attention_bias": config.qkv_bias},
    }[name]
    return (
        shared
        | own
        | {
            "architectures": [f"{name.capitalize()}ForCausalLM"],
            "num_hidden_layers": config.n_layer,
            "num_attention_heads": config.n_head,
            "num_key_value_heads": config.n_kv_head,
            "head_dim": config.head_dim,
            "hidden_size": config.n_embd,
            "intermediate_size": config.n_inner,
            "max_position_embeddings": config.n_positions,
            "hidden_act": config.activation,
            "rms_norm_eps": config.norm_eps,
            "attention_dropout": 0.0,
            **_hf_rope(config.rope, spelling),
        }
    )


def _hf_rope(rope: Rope, spelling: Spelling) -> dict[str, Any]:
    table: dict[str, Any] = {"rope_type": "default" if rope.scaling == "none" else rope.scaling}
    if rope.scaling != "none":
        table["factor"] = rope.factor
    if rope.scaling == "llama3":
        table |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_context,
        }
    if spelling == "new":
        return {"rope_parameters": {"rope_theta": rope.theta, **table}}
    if rope.scaling == "linear":
        table["type"] = table.pop("rope_type")
    return {"rope_theta": rope.theta, "rope_scaling": None if rope.scaling == "none" else table}


def hf_entries(config: ModelConfig, values: Callable[[str], Floats], prefix: bool = True) -> list[Entry]:
    """Return the tensors of a Hugging Face file: `hf_entries(config, Values(config))[0].name`."""
    gpt2 = config.architecture == "gpt2"
    entries = []
    for name, shape in tensor_shapes(config).items():
        if gpt2 and (".attn.k." in name or ".attn.v." in name):
            continue  # inside c_attn
        hf = "lm_head.weight"
        if name != "output.weight":
            hf = functools.reduce(
                lambda n, pair: n.replace(*pair), (_HF_GPT2 if gpt2 else _HF_LLAMA).items(), name
            )
            hf = (("transformer." if gpt2 else "model.") if prefix else "") + hf
        parts = [name]
        if gpt2 and ".attn.q." in name:
            parts = [name.replace(".attn.q.", f".attn.{x}.") for x in "qkv"]
            shape = (3 * shape[0], *shape[1:])
        turned = gpt2 and name.startswith("blocks.") and len(shape) == 2  # Conv1D
        make = functools.partial(_joined, values, parts, turned)
        entries.append(Entry(hf, shape[::-1] if turned else shape, make))
    return entries


def _joined(values: Callable[[str], Floats], parts: list[str], turned: bool) -> Floats:
    whole = np.concatenate([values(part) for part in parts])
    return np.ascontiguousarray(whole.T) if turned else whole


def _hf_ignored(config: ModelConfig, prefix: bool) -> list[Entry]:
    """Return extra tensors of old files: GPT-2's causal mask, Llama's table of frequencies."""
    entries = []
    for i in range(config.n_layer):
        if config.architecture == "gpt2":
            p, lead = config.n_positions, f"{'transformer.' if prefix else ''}h.{i}.attn."
            mask = functools.partial(lambda p: np.tril(np.ones((1, 1, p, p), np.float32)), p)
            entries.append(Entry(f"{lead}bias", (1, 1, p, p), mask, False))
            entries.append(Entry(f"{lead}masked_bias", (), lambda: np.array(-1e4, np.float32), False))
        else:
            name = f"{'model.' if prefix else ''}layers.{i}.self_attn.rotary_emb.inv_freq"
            half = config.head_dim // 2
            entries.append(Entry(name, (half,), functools.partial(np.full, half, 0.5, np.float32), False))
    return entries


def write_safetensors(path: Path, entries: list[Entry], dtype: str = "F32") -> None:
    """Write one safetensors file, a tensor at a time; ignored tensors stay F32."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        kind = dtype if entry.canonical else "F32"
        size = math.prod(entry.shape) * (4 if kind == "F32" else 2)
        header[entry.name] = {"dtype": kind, "shape": list(entry.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            file.write(narrowed(entry.make(), dtype if entry.canonical else "F32").tobytes())


def reference(folder: Path) -> Any:
    """Open the model with transformers, in float32, for evaluation: `reference(folder)(ids).logits`."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
