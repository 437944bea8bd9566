"""The keys of config.json of each family, as transformers 4 and 5 read them: the inverse of its key table.

Only for models from GGUF files; a folder's own config.json is kept. `hf_config` reads the result back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from pophood.config import ModelConfig, Rope
from pophood.errors import Unsupported

Keys = dict[str, Any]
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "silu": "silu"}
_CONTEXTS = [1 << k for k in range(4, 21)]  # candidates for the context before its positions were stretched


def family_keys(config: ModelConfig) -> Keys:
    """Return what config.json says about the architecture: `family_keys(gpt2)["n_layer"] == 12`."""
    return _WRITERS[config.architecture](config)


def _gpt2(config: ModelConfig) -> Keys:
    return {
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None if config.n_inner == 4 * config.n_embd else config.n_inner,
        "n_positions": config.n_positions,
        "activation_function": _ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
    }


def _sizes(config: ModelConfig) -> Keys:
    return {
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_inner,
        "max_position_embeddings": config.named_positions,
    }


def _decoder(config: ModelConfig) -> Keys:
    """Llama's keys, which most families share."""
    assert config.rope is not None
    return _sizes(config) | {
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_dim,
        "hidden_act": _ACTIVATIONS[config.activation],
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope.theta,
        "rope_scaling": _scaling(config.rope, config.head_dim),
    }


def _windows(config: ModelConfig) -> Keys:
    """Return the width of the windows, and the kind of every block."""
    windows = [block.window for block in config.block_attention]
    kinds = ["sliding_attention" if window else "full_attention" for window in windows]
    return {"sliding_window": next((window for window in windows if window), None), "layer_types": kinds}


def _llama(config: ModelConfig) -> Keys:
    return _decoder(config) | {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def _mistral(config: ModelConfig) -> Keys:
    return _decoder(config) | {"sliding_window": _windows(config)["sliding_window"]}


def _ministral(config: ModelConfig) -> Keys:
    return _decoder(config) | _windows(config)


def _qwen2(config: ModelConfig) -> Keys:
    slides = {"use_sliding_window": bool(config.attention)}
    return _decoder(config) | slides | (_windows(config) if config.attention else {})


def _qwen3(config: ModelConfig) -> Keys:
    return _qwen2(config) | {"attention_bias": config.qkv_bias}


def _gemma2(config: ModelConfig) -> Keys:
    scale = config.attention_scale or config.head_dim**-0.5
    keys = _decoder(config) | _windows(config)
    keys |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _whole(scale**-2),
        "attn_logit_softcapping": config.score_cap,
        "final_logit_softcapping": config.logit_cap,
    }
    return {key: value for key, value in keys.items() if key != "hidden_act"}


def _gemma3(config: ModelConfig) -> Keys:
    local = next((block.rope for block in config.block_attention if block.window), None)
    return _gemma2(config) | ({} if local is None else {"rope_local_base_freq": local.theta})


def _phi3(config: ModelConfig) -> Keys:
    rope = config.rope
    assert rope is not None
    keys = {key: value for key, value in _decoder(config).items() if key != "head_dim"}
    if config.n_head * config.head_dim != config.n_embd:
        raise Unsupported("config.json of a phi3 has no head size: export it as GGUF")
    original = {"original_max_position_embeddings": rope.original_context} if rope.long_divisors else {}
    window = _windows(config)["sliding_window"]
    own = {"partial_rotary_factor": rope.share, "sliding_window": window, "pad_token_id": None}
    return keys | original | own  # the default pad token is an id of the published vocabulary


def _olmo2(config: ModelConfig) -> Keys:
    return _decoder(config) | {"attention_bias": config.qkv_bias}


def _granite(config: ModelConfig) -> Keys:
    return _llama(config) | {
        "embedding_multiplier": config.embedding_scale,
        "residual_multiplier": config.residual_scale,
        "attention_multiplier": config.attention_scale or config.head_dim**-0.5,
        "logits_scaling": config.logit_divisor,
    }


def _smollm3(config: ModelConfig) -> Keys:
    rotates = [int(block.rope is not None) for block in config.block_attention]
    return _llama(config) | {"no_rope_layers": rotates, "pad_token_id": None}


def _gpt_neox(config: ModelConfig) -> Keys:
    assert config.rope is not None
    return _sizes(config) | {
        "hidden_act": _ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_eps,
        "rotary_pct": config.rope.share,
        "rotary_emb_base": config.rope.theta,
        "use_parallel_residual": config.parallel,
        "attention_bias": config.qkv_bias,
    }


_WRITERS: dict[str, Callable[[ModelConfig], Keys]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "ministral": _ministral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "granite": _granite,
    "smollm3": _smollm3,
    "gpt_neox": _gpt_neox,
}


def _whole(value: float) -> int | float:
    return round(value) if abs(value - round(value)) < 1e-6 * value else value


def _scaling(rope: Rope, head_dim: int) -> Keys | None:
    if rope.divisors is not None and rope.long_divisors is None:
        rope = _llama3_of(rope, head_dim)
    if rope.scaling == "none":
        return None
    if rope.long_divisors is not None:
        return {
            "rope_type": "longrope",
            "short_factor": list(rope.divisors or ()),
            "long_factor": list(rope.long_divisors),
            "attention_factor": rope.magnitude,
        }
    table: Keys = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        table |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_context,
        }
    if rope.scaling == "yarn":
        table |= {
            "original_max_position_embeddings": rope.original_context,
            "attention_factor": rope.magnitude,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            **({} if rope.truncate else {"truncate": False}),
        }
    return table


def _llama3_of(rope: Rope, head_dim: int) -> Rope:
    """Find the published llama3 parameters that give exactly these divisors.

    GGUF stores only the divisors.
    """
    wanted = rope.frequencies(head_dim)
    factor = float(max(rope.divisors or (1.0,)))
    for context, (low, high) in itertools.product(_CONTEXTS, ((1.0, 4.0), (1.0, 8.0), (2.0, 4.0))):
        candidate = Rope(rope.theta, "llama3", factor, low, high, context)
        if np.array_equal(candidate.frequencies(head_dim), wanted):
            return candidate
    raise Unsupported(
        "the file stretches rotary positions by divisors (rope_freqs.weight) that no llama3 parameters give,"
        " and config.json cannot express them: export it as GGUF"
    )
