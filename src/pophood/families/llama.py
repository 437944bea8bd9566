"""Llama (Touvron et al. 2023) and models built like it: RMS norms, RoPE, grouped-query attention, gated MLP.

These are Llama 2, 3, 3.1 and 3.2, SmolLM2, TinyLlama, Mistral and Ministral. They are read from Hugging Face
folders and from GGUF files of architecture llama, whose q and k rows are permuted. The other families of
decoders build on the tables here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pophood.config import BlockAttention, Limit, ModelConfig, Rope
from pophood.errors import BadFile, Unsupported
from pophood.families import standard
from pophood.families.family import Family, Fields, TensorName
from pophood.families.keys import (
    MOST_ENTRIES,
    Key,
    Used,
    WantedError,
    choice,
    count,
    flag,
    harmless,
    only,
    per_block,
    real,
    switches,
    words,
)
from pophood.families.rope import ROPE_GGUF_KEYS, ROPE_HF_KEYS, rope_of

WINDOW = Used("sliding_window", count(1 << 30), null=True)
GGUF_WINDOW = Used("sliding_window", count(1 << 30, least=0))  # 0 means none, as in llama.cpp
_UNSCALED = "scaling is not computed"
_ATTENTION = ("full_attention", "sliding_attention")


def pattern(value: object) -> int | tuple[bool, ...]:
    """Check for the pattern of windows: n (every nth block sees everything), or a list with true or false."""
    if (of_blocks := switches(value)) is not None:
        return of_blocks
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_ENTRIES:
        raise WantedError("a whole number, or a list with true or false for each block")
    return value


PATTERN = Used("window_pattern", pattern)

# Keys in the config.json of every such decoder; Llama and the Qwens add their own.
DECODER_HF_KEYS: dict[str, Key] = {
    **standard.GENERIC_HF_KEYS,
    "num_hidden_layers": standard.N_LAYER,
    "num_attention_heads": standard.N_HEAD,
    "num_key_value_heads": standard.N_KV_HEAD,
    "head_dim": standard.HEAD_DIM,
    "hidden_size": standard.N_EMBD,
    "intermediate_size": standard.N_INNER,
    "vocab_size": standard.VOCAB_SIZE,
    "max_position_embeddings": standard.N_POSITIONS,
    "rms_norm_eps": standard.NORM_EPS,
    "tie_word_embeddings": standard.TIED_OUTPUT,
    "hidden_act": Used("activation", choice({"silu": "silu", "swish": "silu"})),
    **ROPE_HF_KEYS,
    "layer_types": Used("layer_types", words(_ATTENTION)),
    **harmless("max_sequence_length"),  # the length that Llama 1 was trained on; transformers never read it
    **harmless("attention_dropout", "initializer_range"),
    # Factors of other families; 1 changes nothing.
    **only((1,), _UNSCALED, "logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier"),
    **only((0,), "capping is not computed", "attn_logit_softcapping", "final_logit_softcapping"),
}

LLAMA_HF_KEYS: dict[str, Key] = {
    **DECODER_HF_KEYS,
    "attention_bias": Used("attention_bias", flag),
    "mlp_bias": Used("mlp_bias", flag),
    "sliding_window": WINDOW,
    **harmless("pretraining_tp"),  # split a matrix product into parts with the same sum
}

DECODER_GGUF_KEYS: dict[str, Key] = {
    **standard.GENERIC_GGUF_KEYS,
    "attention.head_count": per_block(standard.N_HEAD),
    "attention.head_count_kv": per_block(standard.N_KV_HEAD),
    "attention.key_length": standard.HEAD_DIM,
    "attention.value_length": Used("value_dim", count(1_024)),
    "attention.layer_norm_rms_epsilon": standard.NORM_EPS,
    "attention.sliding_window": GGUF_WINDOW,
    "attention.sliding_window_pattern": PATTERN,
    "attention.scale": Used("attention_scale", real(0.0, 1e3)),
    **harmless("attention.layer_norm_epsilon"),  # for norms that are not RMS norms
    "feed_forward_length": per_block(standard.N_INNER),
    **ROPE_GGUF_KEYS,
}


def build(architecture: str, fields: Fields, **others: Any) -> ModelConfig:
    """Build the config of a Llama-style decoder from these fields; `others` replace what Llama has.

    BadFile if the fields contradict each other.
    """
    n_head = fields["n_head"]
    n_kv_head = fields.get("n_kv_head") or n_head
    if n_head % n_kv_head:
        raise BadFile(f"{n_head} query heads cannot share {n_kv_head} key heads evenly: {standard.DAMAGED}")
    head_dim = head_size(fields)
    if head_dim % 2:
        raise BadFile(f"a head of {head_dim} features cannot be rotated in pairs: {standard.DAMAGED}")
    if fields.get("value_dim", head_dim) != head_dim:
        raise Unsupported(
            f"attention.value_length is {fields['value_dim']}; pophood computes only the head size,"
            f" {head_dim}"
        )
    biased: bool = fields.get("attention_bias", False)
    rope: Rope | None = (
        others["rope"] if "rope" in others else rope_of(fields, head_dim, fields["n_positions"])
    )
    n_positions, limit = computed_positions(fields, rope)
    windows = () if fields.get("windows_ignored") else windows_of(fields)
    values: dict[str, Any] = {
        "n_kv_head": n_kv_head,
        "head_dim": head_dim,
        "n_inner": fields["n_inner"],
        "n_positions": n_positions,
        "norm": "rms",
        "gated_mlp": True,
        "rope": rope,
        "qkv_bias": fields.get("qkv_bias", biased),
        "attn_out_bias": fields.get("attn_out_bias", biased),
        "mlp_bias": fields.get("mlp_bias", False),
        "qk_norm": None,
        "attention_scale": unusual_scale(fields.get("attention_scale"), head_dim),
        "attention": tuple(BlockAttention(window, rope) for window in windows) if any(windows) else (),
        "limit": limit,
    }
    return standard.config_of(architecture, fields, **(values | others))


def head_size(fields: Fields) -> int:
    """Return the features of a head, named or from the features and heads of the model."""
    if "head_dim" not in fields and fields["n_embd"] % fields["n_head"]:
        raise BadFile(
            f"{fields['n_embd']} features do not divide into {fields['n_head']} heads: {standard.DAMAGED}"
        )
    size: int = fields.get("head_dim", fields["n_embd"] // fields["n_head"])
    return size


def unusual_scale(scale: float | None, head_dim: int) -> float | None:
    """Return the scale of scores, or None for the usual one; 0 means the usual one, as in llama.cpp."""
    if not scale or math.isclose(scale, head_dim**-0.5, rel_tol=1e-6):
        return None
    return scale


def computed_positions(fields: Fields, rope: Rope | None) -> tuple[int, Limit | None]:
    """Return the number of positions that are computed exactly, and the reason if the files name more.

    Where transformers ignores a window that the file names, or the context from which "dynamic" scaling is to
    start, both readings of the file agree up to that.
    """
    named: int = fields["n_positions"]
    ignored = [window for window in windows_of(fields) if window] if fields.get("windows_ignored") else []
    unscaled = min(named, rope.original_context) if rope and rope.scaling == "dynamic" else named
    if ignored and min(ignored) < unscaled:
        why = (
            f"the file names a window beyond that (sliding_window is {min(ignored):,}, and the model's files"
            f" name {named:,} positions), which transformers ignores in this architecture"
        )
        return min(ignored), Limit(named, why)
    if unscaled < named:
        why = (
            "the file rescales rotary positions beyond that (original_max_position_embeddings is"
            f" {unscaled:,}), and transformers from {named:,} on (rope type dynamic)"
        )
        return unscaled, Limit(named, why)
    return named, None


def windows_of(fields: Fields) -> tuple[int | None, ...]:
    """Return the width of every block's window, or None where it sees everything.

    A window that is no smaller than the context hides nothing and counts as none.
    """
    blocks: int = fields["n_layer"]
    window, types = fields.get("sliding_window") or None, fields.get("layer_types")
    every = fields.get("window_pattern")
    for name, entries in (("layer_types", types), ("sliding_window_pattern", every)):
        if isinstance(entries, tuple) and len(entries) != blocks:
            raise BadFile(f"{name} has {len(entries):,} entries for {blocks:,} blocks: {standard.DAMAGED}")
    if not fields.get("use_sliding_window", True):
        window = None
    if types is not None:
        slides = [kind == "sliding_attention" for kind in types]
        if any(slides) and window is None:
            raise Unsupported(
                "config.json: layer_types names 'sliding_attention', but sliding_window is off: one of them"
                " belongs to another model"
            )
    elif isinstance(every, tuple):
        slides = list(every)
    elif every is not None:
        slides = [every == 0 or (i + 1) % every != 0 for i in range(blocks)]
    else:
        slides = [i >= fields.get("max_window_layers", 0) for i in range(blocks)]
    hides = window is not None and window < fields["n_positions"]
    return tuple(window if slide and hides else None for slide in slides)


def decoder_tensors(gguf_pairs: bool) -> tuple[TensorName, ...]:
    """Return the tensor names of a Llama-style decoder; `gguf_pairs` says that GGUF permutes q and k rows."""
    names = [
        TensorName("embed.token", "embed_tokens.weight", "token_embd.weight"),
        TensorName("blocks.{i}.ln_1.weight", "layers.{i}.input_layernorm.weight", "blk.{i}.attn_norm.weight"),
        TensorName(
            "blocks.{i}.ln_2.weight", "layers.{i}.post_attention_layernorm.weight", "blk.{i}.ffn_norm.weight"
        ),
        TensorName("final_norm.weight", "norm.weight", "output_norm.weight"),
        TensorName("output.weight", "lm_head.weight", "output.weight"),
    ]
    for canonical, hf, gguf in (
        ("attn.q", "self_attn.q_proj", "attn_q"),
        ("attn.k", "self_attn.k_proj", "attn_k"),
        ("attn.v", "self_attn.v_proj", "attn_v"),
        ("attn.q_norm", "self_attn.q_norm", "attn_q_norm"),
        ("attn.k_norm", "self_attn.k_norm", "attn_k_norm"),
        ("attn.out", "self_attn.o_proj", "attn_output"),
        ("mlp.gate", "mlp.gate_proj", "ffn_gate"),
        ("mlp.up", "mlp.up_proj", "ffn_up"),
        ("mlp.down", "mlp.down_proj", "ffn_down"),
    ):
        pairs = gguf_pairs and canonical in ("attn.q", "attn.k")
        names += (
            TensorName(
                f"blocks.{{i}}.{canonical}.{end}",
                f"layers.{{i}}.{hf}.{end}",
                f"blk.{{i}}.{gguf}.{end}",
                gguf_pairs=pairs,
            )
            for end in ("weight", "bias")
        )
    return tuple(names)


HF_IGNORED = frozenset({"layers.{i}.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"})
HF_DEFAULTS = {"norm_eps": 1e-6, "tied_output": False, "activation": "silu"}


def build_llama(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Llama; a GGUF file of one with windows is a Mistral or a Ministral."""
    config = build(architecture, fields)
    if not config.attention:
        return config
    every = all(block.window for block in config.attention)
    return replace(config, architecture="mistral" if every else "ministral")


def build_mistral(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Mistral, whose window is that of every block."""
    config = build(architecture, fields)
    if config.attention and not all(block.window for block in config.attention):
        raise Unsupported(
            "config.json: layer_types names blocks without a window, which transformers ignores in a mistral:"
            " such models have the model_type ministral"
        )
    return config


LLAMA = Family(
    name="llama",
    classes=("LlamaForCausalLM", "LlamaModel", "LLaMAForCausalLM"),
    build=build_llama,
    tensors=decoder_tensors(gguf_pairs=True),
    hf_keys=LLAMA_HF_KEYS,
    hf_defaults={**HF_DEFAULTS, "n_positions": 2048, "windows_ignored": True},
    hf_prefix="model.",
    hf_ignored=HF_IGNORED,
    gguf_name="llama",
    gguf_keys=DECODER_GGUF_KEYS,
    gguf_defaults={"activation": "silu"},
    gguf_config_tensors=frozenset({"rope_freqs.weight"}),
    gguf_ignored=frozenset({"blk.{i}.attn_rot_embd.weight"}),  # a table that llama.cpp skips too
)

# Llama with a window in every block; its GGUF files say "llama".
MISTRAL = replace(
    LLAMA,
    name="mistral",
    classes=("MistralForCausalLM", "MistralModel"),
    build=build_mistral,
    hf_keys={
        **DECODER_HF_KEYS,
        "sliding_window": WINDOW,
        **only((False,), "Mistral has no such bias", "attention_bias"),
    },
    hf_defaults={**HF_DEFAULTS, "n_positions": 131_072, "n_kv_head": 8, "sliding_window": 4_096},
    gguf_keys={},
)

# Mistral with a window in some blocks.
MINISTRAL = replace(
    MISTRAL, name="ministral", classes=("MinistralForCausalLM", "MinistralModel"), build=build
)
