"""Qwen2 and Qwen2.5 (Llama with biases on q, k and v) and Qwen3 (Llama with norms on query and key heads).

Read from Hugging Face folders and from GGUF files of architecture qwen2 and qwen3; no rows are permuted.
"""

from __future__ import annotations

from dataclasses import replace

from pophood.config import ModelConfig
from pophood.families import llama
from pophood.families.family import Family, Fields
from pophood.families.keys import Key, Only, Used, count, flag

QWEN_HF_KEYS: dict[str, Key] = {
    **llama.DECODER_HF_KEYS,
    # Attention slides only if the switch is on, in blocks from number max_window_layers on.
    "use_sliding_window": Used("use_sliding_window", flag),
    "sliding_window": llama.WINDOW,
    "use_mrope": Only((False,), "text has one position per token, not three"),
    "max_window_layers": Used("max_window_layers", count(1 << 20, least=0)),
}

QWEN_DEFAULTS = {
    **llama.HF_DEFAULTS,
    "n_positions": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4_096,
    "max_window_layers": 28,
}


def build_qwen2(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Qwen2 or Qwen2.5 from these fields."""
    return llama.build(architecture, {**fields, "qkv_bias": True, "attn_out_bias": False})


def build_qwen3(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Qwen3 from these fields."""
    return llama.build(architecture, fields, qk_norm="head")


QWEN2 = Family(
    name="qwen2",
    classes=("Qwen2ForCausalLM", "Qwen2Model"),
    build=build_qwen2,
    tensors=llama.decoder_tensors(gguf_pairs=False),
    hf_keys={**QWEN_HF_KEYS, "attention_bias": Only((True,), "Qwen2 has biases on q, k and v only")},
    hf_defaults=QWEN_DEFAULTS,
    hf_prefix="model.",
    hf_ignored=llama.HF_IGNORED,
    gguf_name="qwen2",
    gguf_keys=llama.DECODER_GGUF_KEYS,
    gguf_defaults={"activation": "silu"},
)

QWEN3 = replace(
    QWEN2,
    name="qwen3",
    gguf_name="qwen3",
    classes=("Qwen3ForCausalLM", "Qwen3Model"),
    build=build_qwen3,
    hf_keys={**QWEN_HF_KEYS, "attention_bias": Used("attention_bias", flag)},
    hf_defaults={**QWEN_DEFAULTS, "head_dim": 128},
)
