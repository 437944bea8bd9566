"""GPT-NeoX (EleutherAI 2022; Pythia) and GPT-Neo (2021; TinyStories): layer norms with biases, plain GELU.

GPT-NeoX rotates a part of each head, and attention and feed-forward read the same stream. GPT-Neo has learned
positions, windows in every second block, and scores that are not scaled; llama.cpp does not know it.
"""

from __future__ import annotations

from typing import Any

from pophood.config import BlockAttention, ModelConfig
from pophood.errors import BadFile
from pophood.families import llama, standard
from pophood.families.family import Family, Fields, TensorName
from pophood.families.gpt2 import ACTIVATIONS
from pophood.families.keys import (
    MOST_ENTRIES,
    Key,
    NotComputedError,
    Used,
    WantedError,
    choice,
    count,
    flag,
    harmless,
    per_block,
    words,
)
from pophood.families.rope import ROPE_GGUF_KEYS, ROPE_HF_KEYS, SHARE, THETA, rope_of

_TRAINING = ("attention_dropout", "hidden_dropout", "classifier_dropout", "initializer_range")


def _both(
    canonical: str, hf: str, gguf: str, part: tuple[int, int] = (0, 1)
) -> tuple[TensorName, TensorName]:
    """Return the rows of a weight and its bias; parts lie side by side within each head."""
    weight, bias = (
        TensorName(
            f"{canonical}.{end}", f"{hf}.{end}", f"{gguf}.{end}" if gguf else "", part, by_head=part[1] > 1
        )
        for end in ("weight", "bias")
    )
    return weight, bias


# ---- GPT-NeoX ----


def build_neox(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a GPT-NeoX or Pythia."""
    head_dim = llama.head_size(fields)
    if fields.get("n_kv_head", fields["n_head"]) != fields["n_head"]:
        raise BadFile(
            f"{fields['n_kv_head']} key heads for {fields['n_head']} query heads: GPT-NeoX has as many"
        )
    biased = fields.get("attention_bias", True)
    return standard.config_of(
        architecture,
        fields,
        n_kv_head=fields["n_head"],
        head_dim=head_dim,
        n_inner=fields["n_inner"],
        n_positions=fields["n_positions"],
        norm="layer",
        gated_mlp=False,
        rope=rope_of(fields, head_dim, fields["n_positions"]),
        qkv_bias=fields.get("qkv_bias", biased),
        attn_out_bias=fields.get("attn_out_bias", biased),
        mlp_bias=True,
        qk_norm=None,
        parallel=fields["parallel"],
    )


_NEOX = "layers.{i}"
NEOX = Family(
    name="gpt_neox",
    classes=("GPTNeoXForCausalLM", "GPTNeoXModel"),
    build=build_neox,
    tensors=(
        TensorName("embed.token", "embed_in.weight", "token_embd.weight"),
        *_both("blocks.{i}.ln_1", f"{_NEOX}.input_layernorm", "blk.{i}.attn_norm"),
        *_both("blocks.{i}.attn.q", f"{_NEOX}.attention.query_key_value", "blk.{i}.attn_qkv", (0, 3)),
        *_both("blocks.{i}.attn.k", f"{_NEOX}.attention.query_key_value", "blk.{i}.attn_qkv", (1, 3)),
        *_both("blocks.{i}.attn.v", f"{_NEOX}.attention.query_key_value", "blk.{i}.attn_qkv", (2, 3)),
        *_both("blocks.{i}.attn.out", f"{_NEOX}.attention.dense", "blk.{i}.attn_output"),
        *_both("blocks.{i}.ln_2", f"{_NEOX}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        *_both("blocks.{i}.mlp.up", f"{_NEOX}.mlp.dense_h_to_4h", "blk.{i}.ffn_up"),
        *_both("blocks.{i}.mlp.down", f"{_NEOX}.mlp.dense_4h_to_h", "blk.{i}.ffn_down"),
        *_both("final_norm", "final_layer_norm", "output_norm"),
        TensorName("output.weight", "embed_out.weight", "output.weight"),
    ),
    hf_keys={
        **standard.GENERIC_HF_KEYS,
        "num_hidden_layers": standard.N_LAYER,
        "num_attention_heads": standard.N_HEAD,
        "hidden_size": standard.N_EMBD,
        "intermediate_size": standard.N_INNER,
        "vocab_size": standard.VOCAB_SIZE,
        "max_position_embeddings": standard.N_POSITIONS,
        "hidden_act": Used("activation", choice(ACTIVATIONS)),
        "layer_norm_eps": standard.NORM_EPS,
        "tie_word_embeddings": standard.TIED_OUTPUT,
        "use_parallel_residual": Used("parallel", flag),
        "attention_bias": Used("attention_bias", flag),
        **ROPE_HF_KEYS,
        "rotary_pct": SHARE,
        "rotary_emb_base": THETA,
        **harmless(*_TRAINING),
    },
    hf_defaults={
        "norm_eps": 1e-5,
        "tied_output": False,
        "activation": "gelu",
        "n_positions": 2_048,
        "parallel": True,
        "rope_default_share": 0.25,
    },
    hf_prefix="gpt_neox.",
    hf_ignored=frozenset(
        f"{_NEOX}.attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq")
    ),
    gguf_name="gptneox",
    gguf_keys={
        **standard.GENERIC_GGUF_KEYS,
        "attention.head_count": per_block(standard.N_HEAD),
        "attention.head_count_kv": per_block(standard.N_KV_HEAD),
        "feed_forward_length": per_block(standard.N_INNER),
        "attention.layer_norm_epsilon": standard.NORM_EPS,
        "use_parallel_residual": Used("parallel", flag),
        **ROPE_GGUF_KEYS,
    },
    gguf_defaults={"activation": "gelu", "parallel": True},
)

# ---- GPT-Neo ----


def attention_types(value: object) -> tuple[str, ...]:
    """Check for transformers' short form of a list, [[["global", "local"], 12]], and write it out."""
    expanded: list[str] = []
    for item in value if isinstance(value, list) else [None]:
        if not (isinstance(item, list) and len(item) == 2 and isinstance(item[0], list)):
            raise WantedError('a list such as [[["global", "local"], 12]]')
        names, times = item
        if type(times) is not int or not 0 <= times * len(names) <= MOST_ENTRIES:
            raise WantedError('a list such as [[["global", "local"], 12]]')
        if any(name not in ("global", "local") for name in names):
            raise NotComputedError("only global and local")
        expanded += names * times
    return tuple(expanded)


def build_neo(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a GPT-Neo."""
    blocks, types = fields["n_layer"], fields["attention_types"]
    if len(types) != blocks:
        raise BadFile(f"attention_types has {len(types):,} entries for {blocks:,} blocks: {standard.DAMAGED}")
    if fields.get("attention_layers", types) != types:
        raise BadFile("attention_layers and attention_types differ, although they mean the same: keep one")
    if "head_dim" in fields:
        raise BadFile(f"GPT-Neo has no head_dim: {standard.DAMAGED}")
    window, named = fields["sliding_window"], fields["n_positions"]
    windows = [window if kind == "local" and window < named else None for kind in types]
    attention = tuple(BlockAttention(width, None) for width in windows)
    return standard.config_of(
        architecture,
        fields,
        n_kv_head=fields["n_head"],
        head_dim=llama.head_size(fields),
        n_inner=fields["n_inner"] or 4 * fields["n_embd"],
        n_positions=named,
        norm="layer",
        gated_mlp=False,
        rope=None,
        qkv_bias=False,
        attn_out_bias=True,
        mlp_bias=True,
        qk_norm=None,
        attention_scale=1.0,
        attention=attention if any(windows) else (),
    )


_NEO_KEYS: dict[str, Key] = {
    **standard.GENERIC_HF_KEYS,
    **dict.fromkeys(("num_layers", "num_hidden_layers"), standard.N_LAYER),
    **dict.fromkeys(("num_heads", "num_attention_heads"), standard.N_HEAD),
    "hidden_size": standard.N_EMBD,
    "intermediate_size": standard.N_INNER,
    "vocab_size": standard.VOCAB_SIZE,
    "max_position_embeddings": standard.N_POSITIONS,
    "window_size": Used("sliding_window", count(1 << 30)),
    "attention_types": Used("attention_types", attention_types),
    "attention_layers": Used("attention_layers", words(("global", "local"))),
    "activation_function": Used("activation", choice(ACTIVATIONS)),
    "layer_norm_epsilon": standard.NORM_EPS,
    "tie_word_embeddings": standard.TIED_OUTPUT,
    **harmless(
        "attention_dropout", "embed_dropout", "resid_dropout", "classifier_dropout", "initializer_range"
    ),
    **harmless("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    **harmless("summary_use_proj"),
}
_NEO_DEFAULTS: dict[str, Any] = {
    "norm_eps": 1e-5,
    "tied_output": True,
    "activation": "gelu_tanh",
    "n_positions": 2_048,
    "n_inner": None,
    "sliding_window": 256,
    "attention_types": ("global", "local") * 12,
}

NEO = Family(
    name="gpt_neo",
    classes=("GPTNeoForCausalLM", "GPTNeoModel"),
    build=build_neo,
    tensors=(
        TensorName("embed.token", "wte.weight", ""),
        TensorName("embed.position", "wpe.weight", ""),
        *_both("blocks.{i}.ln_1", "h.{i}.ln_1", ""),
        *_both("blocks.{i}.attn.q", "h.{i}.attn.attention.q_proj", ""),
        *_both("blocks.{i}.attn.k", "h.{i}.attn.attention.k_proj", ""),
        *_both("blocks.{i}.attn.v", "h.{i}.attn.attention.v_proj", ""),
        *_both("blocks.{i}.attn.out", "h.{i}.attn.attention.out_proj", ""),
        *_both("blocks.{i}.ln_2", "h.{i}.ln_2", ""),
        *_both("blocks.{i}.mlp.up", "h.{i}.mlp.c_fc", ""),
        *_both("blocks.{i}.mlp.down", "h.{i}.mlp.c_proj", ""),
        *_both("final_norm", "ln_f", ""),
        TensorName("output.weight", "lm_head.weight", ""),
    ),
    hf_keys=_NEO_KEYS,
    hf_defaults=_NEO_DEFAULTS,
    hf_prefix="transformer.",
    hf_ignored=frozenset({"h.{i}.attn.attention.bias", "h.{i}.attn.attention.masked_bias"}),
)
