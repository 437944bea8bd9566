"""Gemma 2 and Gemma 3 (Google 2024, 2025): windows in most blocks, norms before and after, a gate with GELU.

Hugging Face stores the norms' gains minus 1, GGUF the gains. Gemma 2 caps scores and logits; Gemma 3 has
norms on query and key heads and rotates the blocks with a window by a base of their own. Of a multimodal
Gemma 3 the text model is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pophood.config import BlockAttention, ModelConfig, Rope
from pophood.errors import BadFile, Unsupported
from pophood.families import llama
from pophood.families.family import Family, Fields, TensorName
from pophood.families.gpt2 import ACTIVATIONS
from pophood.families.keys import Key, Only, Used, choice, harmless, only, real
from pophood.families.rope import THETA, checked, rope_of, rope_of_table

_CAP = real(1e-3, 1e6)
_SCALAR = Used("query_scalar", real(1e-3, 1e6))
_UNSCALED = "scaling is not computed"

_HF_KEYS: dict[str, Key] = {
    **llama.DECODER_HF_KEYS,
    # transformers reads hidden_activation; hidden_act beside it is an older name that it ignores.
    "hidden_activation": Used("activation", choice(ACTIVATIONS)),
    **harmless("hidden_act"),
    "query_pre_attn_scalar": _SCALAR,
    "attn_logit_softcapping": Used("score_cap", _CAP, null=True),
    "final_logit_softcapping": Used("logit_cap", _CAP, null=True),
    "sliding_window": llama.WINDOW,
    "attention_bias": Only((False,), "Gemma has no such bias"),
    **dict.fromkeys(("sliding_window_pattern", "_sliding_window_pattern"), llama.PATTERN),
}
_HF_DEFAULTS: dict[str, Any] = {
    **llama.HF_DEFAULTS,
    "activation": "gelu_tanh",
    "tied_output": True,
    "head_dim": 256,
    "n_kv_head": 4,
    "query_scalar": 256.0,
    "sliding_window": 4_096,
}
_GGUF_KEYS: dict[str, Key] = {
    **llama.DECODER_GGUF_KEYS,
    "attn_logit_softcapping": Used("score_cap", real(0.0, 1e6)),  # 0 means none
    "final_logit_softcapping": Used("logit_cap", real(0.0, 1e6)),
}
_WIDE = {"gemma2": 46, "gemma3_text": 62}  # blocks of the 27B models, whose scale llama.cpp knows by them


def _common(fields: Fields) -> dict[str, Any]:
    scale = fields["query_scalar"] ** -0.5 if "query_scalar" in fields else fields.get("attention_scale")
    return {
        "norm_places": "both",
        "attention_scale": llama.unusual_scale(scale, llama.head_size(fields)),
        "embedding_scale": fields["n_embd"] ** 0.5,
        "score_cap": fields.get("score_cap") or None,
        "logit_cap": fields.get("logit_cap") or None,
    }


def gguf_scale(architecture: str, n_layer: int, n_embd: int, n_head: int) -> float | None:
    """Return the scale of scores that llama.cpp takes, which the file does not name; None: the usual one."""
    return (n_embd / n_head) ** -0.5 if n_layer == _WIDE[architecture] else None


def unsaid(config: ModelConfig) -> str:
    """Return why GGUF cannot express a model: llama.cpp takes its scale of scores from the model's size."""
    wanted = gguf_scale(config.architecture, config.n_layer, config.n_embd, config.n_head)
    if config.attention_scale == llama.unusual_scale(wanted, config.head_dim):
        return ""
    return f"llama.cpp does not read the scale of scores of a {config.architecture}"


def _with_gguf_scale(architecture: str, fields: Fields) -> Fields:
    if "query_scalar" in fields or fields.get("attention_scale"):
        return fields
    scale = gguf_scale(architecture, fields["n_layer"], fields["n_embd"], fields["n_head"])
    return {**fields, "attention_scale": scale}


def build_gemma2(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Gemma 2."""
    fields = _with_gguf_scale(architecture, fields)
    return llama.build(architecture, fields, **_common(fields))


def build_gemma3(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Gemma 3: blocks without a window have the named base and scaling."""
    fields = _with_gguf_scale(architecture, fields)
    head_dim, windows = llama.head_size(fields), llama.windows_of(fields | {"n_positions": 1 << 30})
    full, local = _ropes(fields, head_dim)
    attention = tuple(BlockAttention(window, local if window else full) for window in windows)
    config = llama.build(architecture, fields, qk_norm="head", rope=full, **_common(fields))
    return replace(config, attention=attention)


def _ropes(fields: Fields, head_dim: int) -> tuple[Rope, Rope]:
    """Return the Rope of blocks that see everything, and that of blocks with a window."""
    tables, local = fields.get("rope_parameters"), Rope(fields.get("local_theta", 1e4))
    positions = fields["n_positions"]
    if not tables or not {"full_attention", "sliding_attention"} & set(tables):
        full = rope_of({"rope_theta": 1e6} | fields, head_dim, positions)
        return full, local
    if set(tables) - {"full_attention", "sliding_attention"} or fields.get("rope_scaling"):
        raise Unsupported(
            "config.json: rope_parameters has tables that are not of full and sliding attention"
        )
    full_table, local_table = tables.get("full_attention"), tables.get("sliding_attention")
    for table in (full_table, local_table):
        if table is not None and not isinstance(table, dict):
            raise BadFile("config.json: rope_parameters has an entry that is not a table of keys")
    full_outer = {"rope_theta": fields["rope_theta"]} if "rope_theta" in fields else {}
    full = rope_of_table({"rope_theta": 1e6, **full_outer} | (full_table or {}), full_outer, positions)
    local_outer = {"rope_theta": fields["local_theta"]} if "local_theta" in fields else {}
    local = rope_of_table({"rope_theta": 1e4, **local_outer} | (local_table or {}), local_outer, positions)
    for rope in (full, local):
        if rope.scaling == "dynamic":
            raise Unsupported("config.json: rope_parameters of type dynamic are not computed in a Gemma 3")
    return checked(full, head_dim), checked(local, head_dim)


def _tensors() -> tuple[TensorName, ...]:
    """Llama's names, but for four norms per block; gains are stored minus 1 in Hugging Face's files."""
    others = {
        "blocks.{i}.ln_1_post.weight": ("layers.{i}.post_attention_layernorm", "post_attention_norm"),
        "blocks.{i}.ln_2.weight": ("layers.{i}.pre_feedforward_layernorm", "ffn_norm"),
        "blocks.{i}.ln_2_post.weight": ("layers.{i}.post_feedforward_layernorm", "post_ffw_norm"),
    }
    rows = [
        replace(row, less_one="norm" in row.canonical or ".ln_" in row.canonical)
        for row in llama.decoder_tensors(gguf_pairs=False)
        if row.canonical not in others
    ]
    for canonical, (hf, gguf) in others.items():
        rows.append(TensorName(canonical, f"{hf}.weight", f"blk.{{i}}.{gguf}.weight", less_one=True))
    return tuple(rows)


GEMMA2 = Family(
    name="gemma2",
    classes=("Gemma2ForCausalLM", "Gemma2Model"),
    build=build_gemma2,
    tensors=_tensors(),
    hf_keys=_HF_KEYS,
    hf_defaults={
        **_HF_DEFAULTS,
        "n_positions": 8_192,
        "score_cap": 50.0,
        "logit_cap": 30.0,
        "window_pattern": 2,
    },
    hf_prefix="model.",
    hf_ignored=llama.HF_IGNORED,
    gguf_name="gemma2",
    gguf_unsaid=unsaid,
    gguf_keys=_GGUF_KEYS,
    gguf_defaults={
        "activation": "gelu_tanh",
        "score_cap": 50.0,
        "logit_cap": 30.0,
        "window_pattern": 2,
        "sliding_window": 4_096,
    },
)

GEMMA3 = replace(
    GEMMA2,
    name="gemma3_text",
    classes=("Gemma3ForCausalLM", "Gemma3TextModel"),
    build=build_gemma3,
    hf_keys={
        **_HF_KEYS,
        "rope_local_base_freq": Used("local_theta", THETA.check),
        # Only in the table of a multimodal model.
        **harmless("text_config", "vision_config", "mm_tokens_per_image", "image_token_index"),
        **only((), _UNSCALED, "logit_scale"),
    },
    hf_defaults={
        **_HF_DEFAULTS,
        "n_positions": 131_072,
        "window_pattern": 6,
        "n_head": 8,
        "vocab_size": 262_208,
    },
    gguf_name="gemma3",
    gguf_keys={**_GGUF_KEYS, "rope.freq_base_swa": Used("local_theta", THETA.check)},
    gguf_defaults={"activation": "gelu_tanh", "window_pattern": 6, "rope_theta": 1e6},
)
