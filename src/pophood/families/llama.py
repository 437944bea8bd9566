"""Llama (Touvron et al. 2023) and models built like it: RMS norms, RoPE, grouped-query attention, gated MLP.

These are Llama 2, 3, 3.1 and 3.2, SmolLM2, TinyLlama, and Mistral up to the width of its sliding window. They
are read from Hugging Face folders and from GGUF files of architecture llama, whose q and k rows are permuted.
qwen.py builds on the tables here.
"""

from __future__ import annotations

import math
from dataclasses import replace

from pophood.config import Limit, ModelConfig, Rope
from pophood.errors import BadFile, Unsupported
from pophood.families import standard
from pophood.families.family import Family, Fields, TensorName
from pophood.families.keys import Key, Used, choice, count, flag, harmless, only, per_block, real, words
from pophood.families.rope import ROPE_GGUF_KEYS, ROPE_HF_KEYS, rope_of

WINDOW = Used("sliding_window", count(1 << 30), null=True)
GGUF_WINDOW = Used("sliding_window", count(1 << 30, least=0))  # 0 means none, as in llama.cpp
_UNSCALED = "scaling is not computed"
_ATTENTION = ("full_attention", "sliding_attention")

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
    **harmless("attention.sliding_window_pattern"),  # which blocks slide; up to the window, none does
    "attention.scale": Used("attention_scale", real(0.0, 1e3)),
    **harmless("attention.layer_norm_epsilon"),  # for norms that are not RMS norms
    "feed_forward_length": per_block(standard.N_INNER),
    **ROPE_GGUF_KEYS,
}


def build(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Llama-style decoder from these fields; BadFile if they contradict each other."""
    n_embd, n_head = fields["n_embd"], fields["n_head"]
    n_kv_head = fields.get("n_kv_head") or n_head
    if n_head % n_kv_head:
        raise BadFile(f"{n_head} query heads cannot share {n_kv_head} key heads evenly: {standard.DAMAGED}")
    if "head_dim" not in fields and n_embd % n_head:
        raise BadFile(f"{n_embd} features do not divide into {n_head} heads: {standard.DAMAGED}")
    head_dim: int = fields.get("head_dim", n_embd // n_head)
    if head_dim % 2:
        raise BadFile(f"a head of {head_dim} features cannot be rotated in pairs: {standard.DAMAGED}")
    for field, what in (("value_dim", "attention.value_length"), ("rotary_dim", "rope.dimension_count")):
        if fields.get(field, head_dim) != head_dim:
            raise Unsupported(f"{what} is {fields[field]}; pophood computes only the head size, {head_dim}")
    scale = fields.get("attention_scale", 0.0)  # 0 means the usual scale, as in llama.cpp
    if scale and not math.isclose(scale, head_dim**-0.5, rel_tol=1e-6):
        raise Unsupported(
            f"attention.scale is {scale:g}; pophood computes only the usual one, 1 / sqrt({head_dim})"
        )
    biased: bool = fields.get("attention_bias", False)
    rope = rope_of(fields, head_dim, fields["n_positions"])
    n_positions, limit = computed_positions(fields, rope)
    return standard.config_of(
        architecture,
        fields,
        n_kv_head=n_kv_head,
        head_dim=head_dim,
        n_inner=fields["n_inner"],
        n_positions=n_positions,
        norm="rms",
        gated_mlp=True,
        rope=rope,
        qkv_bias=fields.get("qkv_bias", biased),
        attn_out_bias=fields.get("attn_out_bias", biased),
        mlp_bias=fields.get("mlp_bias", False),
        qk_norm=fields.get("qk_norm", False),
        limit=limit,
    )


def computed_positions(fields: Fields, rope: Rope) -> tuple[int, Limit | None]:
    """Return the number of positions that full attention with this Rope computes exactly, and any limit.

    A window of w positions hides nothing from the first w; "dynamic" scaling starts after the context that
    the model was trained on. Raises BadFile or Unsupported for contradictory settings of the window.
    """
    named: int = fields["n_positions"]
    window = _window(fields)
    unscaled = min(named, rope.original_context) if rope.scaling == "dynamic" else named
    if window is not None and window < unscaled:
        why = (
            f"attention slides beyond that (sliding_window is {window:,}, and the model's files name"
            f" {named:,} positions), and sliding is not computed"
        )
        return window, Limit(named, window, why)
    if rope.scaling == "dynamic":
        why = f"rotary positions are rescaled beyond that (rope type dynamic, factor {rope.factor:g})"
        return unscaled, Limit(named, window, f"{why}, which is not computed")
    return named, None


def _window(fields: Fields) -> int | None:
    """Return the width of the window that slides over the keys of some block, or None if no block has one."""
    window, types = fields.get("sliding_window") or None, fields.get("layer_types")
    if types is not None and len(types) != fields["n_layer"]:
        raise BadFile(
            f"config.json: layer_types has {len(types):,} entries for {fields['n_layer']:,} blocks:"
            f" {standard.DAMAGED}"
        )
    named = types is not None and "sliding_attention" in types
    if "use_sliding_window" in fields:  # the Qwens have a switch, and say which blocks slide
        window = window if fields["use_sliding_window"] else None
        slides = named if types is not None else fields["max_window_layers"] < fields["n_layer"]
    else:
        slides = True
    if named and window is None:
        raise Unsupported(
            "config.json: layer_types names 'sliding_attention', but sliding_window is off: one of them"
            " belongs to another model"
        )
    return window if slides else None


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

LLAMA = Family(
    name="llama",
    classes=("LlamaForCausalLM", "LlamaModel", "LLaMAForCausalLM"),
    build=build,
    tensors=decoder_tensors(gguf_pairs=True),
    hf_keys=LLAMA_HF_KEYS,
    hf_defaults={**HF_DEFAULTS, "n_positions": 2048},
    hf_prefix="model.",
    hf_ignored=HF_IGNORED,
    gguf_keys=DECODER_GGUF_KEYS,
    gguf_defaults={"activation": "silu"},
    gguf_config_tensors=frozenset({"rope_freqs.weight"}),
    gguf_ignored=frozenset({"blk.{i}.attn_rot_embd.weight"}),  # a table that llama.cpp skips too
)

# Llama with a sliding window, computed up to the width of the window; its GGUF files say "llama".
MISTRAL = replace(
    LLAMA,
    name="mistral",
    classes=("MistralForCausalLM", "MistralModel"),
    hf_keys={
        **DECODER_HF_KEYS,
        "sliding_window": WINDOW,
        **only((False,), "Mistral has no such bias", "attention_bias"),
    },
    hf_defaults={**HF_DEFAULTS, "n_positions": 131_072, "n_kv_head": 8, "sliding_window": 4_096},
    gguf_keys={},
)
