"""OLMo 2 (Ai2 2024), Granite 3 (IBM 2024) and SmolLM3 (Hugging Face 2025), which differ little from Llama.

OLMo 2 norms what attention and feed-forward add to the stream, and queries and keys over all heads. Granite
has four multipliers. SmolLM3 does not rotate every fourth block. GGUF permutes q and k rows of the last two.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pophood.config import BlockAttention, ModelConfig
from pophood.errors import BadFile
from pophood.families import llama, standard
from pophood.families.family import Family, Fields, TensorName
from pophood.families.keys import MOST_ENTRIES, Key, Used, WantedError, count, flag, harmless, real, switches

_FACTOR = real(1e-6, 1e6)
_PUBLISHED_STEP = 4  # every fourth block of a SmolLM3 does not rotate; llama.cpp knows no other

# ---- OLMo 2 ----


def build_olmo2(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of an OLMo 2."""
    return llama.build(architecture, fields, norm_places="after", qk_norm="all")


_OLMO2_NORMS = (
    TensorName(
        "blocks.{i}.ln_1_post.weight",
        "layers.{i}.post_attention_layernorm.weight",
        "blk.{i}.post_attention_norm.weight",
    ),
    TensorName(
        "blocks.{i}.ln_2_post.weight",
        "layers.{i}.post_feedforward_layernorm.weight",
        "blk.{i}.post_ffw_norm.weight",
    ),
)

OLMO2 = Family(
    name="olmo2",
    classes=("Olmo2ForCausalLM", "Olmo2Model"),
    build=build_olmo2,
    tensors=(
        *(row for row in llama.decoder_tensors(gguf_pairs=False) if ".ln_" not in row.canonical),
        *_OLMO2_NORMS,
    ),
    hf_keys={**llama.DECODER_HF_KEYS, "attention_bias": Used("attention_bias", flag)},
    hf_defaults={**llama.HF_DEFAULTS, "norm_eps": 1e-5, "n_positions": 2_048},
    hf_prefix="model.",
    hf_ignored=llama.HF_IGNORED,
    gguf_name="olmo2",
    gguf_keys=llama.DECODER_GGUF_KEYS,
    gguf_defaults={"activation": "silu"},
)

# ---- Granite ----


def build_granite(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a Granite 3 with one feed-forward per block."""
    return llama.build(
        architecture,
        fields,
        embedding_scale=fields.get("embedding_scale") or 1.0,
        residual_scale=fields.get("residual_scale") or 1.0,
        logit_divisor=fields.get("logit_divisor") or 1.0,
    )


GRANITE = Family(
    name="granite",
    classes=("GraniteForCausalLM", "GraniteModel"),
    build=build_granite,
    tensors=llama.decoder_tensors(gguf_pairs=True),
    hf_keys={
        **llama.DECODER_HF_KEYS,
        "attention_bias": Used("attention_bias", flag),
        "mlp_bias": Used("mlp_bias", flag),
        "embedding_multiplier": Used("embedding_scale", _FACTOR),
        "residual_multiplier": Used("residual_scale", _FACTOR),
        "attention_multiplier": Used("attention_scale", _FACTOR),
        "logits_scaling": Used("logit_divisor", _FACTOR),
    },
    hf_defaults={**llama.HF_DEFAULTS, "n_positions": 2_048, "attention_scale": 1.0},
    hf_prefix="model.",
    hf_ignored=llama.HF_IGNORED,
    gguf_name="granite",
    gguf_keys={
        **llama.DECODER_GGUF_KEYS,
        "embedding_scale": Used("embedding_scale", real(0.0, 1e6)),  # 0 means 1
        "residual_scale": Used("residual_scale", real(0.0, 1e6)),
        "logit_scale": Used("logit_divisor", real(0.0, 1e6)),
    },
    gguf_defaults={"activation": "silu"},
    gguf_config_tensors=frozenset({"rope_freqs.weight"}),
)

# ---- SmolLM3 ----


def rotating_blocks(value: object) -> tuple[bool, ...]:
    """Check for a list with 1 for a block that rotates and 0 for one that does not."""
    rotates = switches(value)
    if rotates is None:
        raise WantedError("a list with 0 or 1 for each block")
    return rotates


def build_smollm3(architecture: str, fields: Fields) -> ModelConfig:
    """Build the config of a SmolLM3, in which some blocks do not rotate."""
    config = llama.build(architecture, fields)
    blocks, step = config.n_layer, fields.get("no_rope_interval", _PUBLISHED_STEP)
    rotates = fields.get("no_rope_layers", tuple((i + 1) % step != 0 for i in range(blocks)))
    if len(rotates) != blocks:
        raise BadFile(
            f"no_rope_layers has {len(rotates):,} entries for {blocks:,} blocks: {standard.DAMAGED}"
        )
    return replace(
        config,
        attention=tuple(
            BlockAttention(block.window, block.rope if own else None)
            for block, own in zip(config.block_attention, rotates, strict=True)
        ),
    )


def unsaid_smollm3(config: ModelConfig) -> str:
    """Return why GGUF cannot express a model, unless every fourth block, and no other, does not rotate."""
    rotates = [block.rope is not None for block in config.block_attention]
    if rotates == [(i + 1) % _PUBLISHED_STEP != 0 for i in range(config.n_layer)]:
        return ""
    return f"llama.cpp rotates all blocks of a SmolLM3 but every {_PUBLISHED_STEP}th"


_SMOLLM3_KEYS: dict[str, Key] = {
    **llama.LLAMA_HF_KEYS,
    "use_sliding_window": Used("use_sliding_window", flag),
    "no_rope_layers": Used("no_rope_layers", rotating_blocks),
    "no_rope_layer_interval": Used("no_rope_interval", count(MOST_ENTRIES)),
    **harmless("max_window_layers"),  # transformers reads layer_types alone
}
_SMOLLM3_DEFAULTS: dict[str, Any] = {
    **llama.HF_DEFAULTS,
    "n_positions": 32_768,
    "n_kv_head": 4,
    "tied_output": True,
    "use_sliding_window": False,
}

SMOLLM3 = replace(
    llama.LLAMA,
    name="smollm3",
    classes=("SmolLM3ForCausalLM", "SmolLM3Model"),
    build=build_smollm3,
    hf_keys=_SMOLLM3_KEYS,
    hf_defaults=_SMOLLM3_DEFAULTS,
    gguf_name="smollm3",
    gguf_unsaid=unsaid_smollm3,
)
