"""Phi-3, Phi-3.5 and Phi-4-mini (Microsoft 2024, 2025): Llama with joined matrices (small: a few keys).

One holds q, k and v, one gate and up, in GGUF too. The long versions have two lists of divisors for rotary
positions (longrope); Phi-4-mini rotates three quarters of each head.
"""

from __future__ import annotations

from dataclasses import replace

from pophood.families import llama
from pophood.families.family import Family, TensorName
from pophood.families.keys import Key, Only, harmless, only
from pophood.families.rope import ORIGINAL

_JOINED = {
    "attn.q": ("self_attn.qkv_proj", "attn_qkv", (0, 3)),
    "attn.k": ("self_attn.qkv_proj", "attn_qkv", (1, 3)),
    "attn.v": ("self_attn.qkv_proj", "attn_qkv", (2, 3)),
    "mlp.gate": ("mlp.gate_up_proj", "ffn_up", (0, 2)),
    "mlp.up": ("mlp.gate_up_proj", "ffn_up", (1, 2)),
}


def _joined(row: TensorName) -> TensorName:
    canonical, _, end = row.canonical.removeprefix("blocks.{i}.").rpartition(".")
    if canonical not in _JOINED:
        return row
    hf, gguf, part = _JOINED[canonical]
    return replace(row, hf=f"layers.{{i}}.{hf}.{end}", gguf=f"blk.{{i}}.{gguf}.{end}", part=part)


_HF_KEYS: dict[str, Key] = {
    **llama.DECODER_HF_KEYS,
    "sliding_window": llama.WINDOW,
    "original_max_position_embeddings": ORIGINAL,
    **only((False,), "Phi-3 has no such bias", "attention_bias", "mlp_bias", "lm_head_bias"),
    **harmless("resid_pdrop", "embd_pdrop"),
    # The code that the published folders name is in transformers too, and is not needed here.
    **harmless("auto_map"),
    **only((1,), "other positions are not computed", "full_attn_mod", "interpolate_factor"),
}

PHI3 = Family(
    name="phi3",
    classes=("Phi3ForCausalLM", "Phi3Model"),
    build=llama.build,
    tensors=tuple(map(_joined, llama.decoder_tensors(gguf_pairs=False))),
    hf_keys=_HF_KEYS,
    hf_defaults={**llama.HF_DEFAULTS, "norm_eps": 1e-5, "n_positions": 4_096},
    hf_prefix="model.",
    hf_ignored=llama.HF_IGNORED,
    gguf_name="phi3",
    gguf_keys={**llama.DECODER_GGUF_KEYS, "attention.scale": Only((0,), "Phi-3 has the usual scale")},
    gguf_defaults={"activation": "silu"},
    gguf_config_tensors=frozenset({"rope_factors_long.weight", "rope_factors_short.weight"}),
)
