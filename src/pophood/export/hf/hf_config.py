"""Makes config.json and generation_config.json, as transformers reads them, from a model's config.

The result is read back by `families.config_from_hf` and compared: a setting that the file cannot express is
refused by name.
"""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from typing import Any

import numpy as np

from pophood.config import ModelConfig, Rope
from pophood.errors import BadFile, Unsupported
from pophood.export.merged import source_folder
from pophood.families import config_from_hf, family_of
from pophood.formats.json_file import read_json
from pophood.model.bundle import Bundle

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "silu": "silu"}
_CONTEXTS = [1 << k for k in range(4, 21)]  # candidates for the context before its positions were stretched


def config_json(bundle: Bundle, kind: str) -> dict[str, Any]:
    """Return the config of an exported folder: the source folder's, if any, with the new type and class."""
    if bundle.file_format == "safetensors":
        written = read_json(source_folder(bundle) / "config.json")
        written.pop("dtype", None)
        if not bundle.config.tied_output:
            written["tie_word_embeddings"] = False  # the source's config may say true although it has both
    else:
        written = from_config(bundle.config) | token_ids(bundle)
    written["architectures"] = [family_of(bundle.config).classes[0]]
    written["torch_dtype"] = DTYPES[kind]
    _check(written, bundle.config)
    return written


def from_config(config: ModelConfig) -> dict[str, Any]:
    """Return config.json for this architecture, in the spelling that transformers 4 and 5 read."""
    shared = {
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_output,
    }
    if config.rope is None:
        return shared | {
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_embd": config.n_embd,
            "n_inner": None if config.n_inner == 4 * config.n_embd else config.n_inner,
            "n_positions": config.n_positions,
            "activation_function": _ACTIVATIONS[config.activation],
            "layer_norm_epsilon": config.norm_eps,
        }
    window = config.limit.window if config.limit else None
    slides = {} if window is None else {"sliding_window": window}
    qwen = {"use_sliding_window": window is not None} | slides
    qwen |= {} if window is None else {"max_window_layers": 0}
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias} | slides,
        "mistral": {"sliding_window": window},
        "qwen2": qwen,
        "qwen3": qwen | {"attention_bias": config.qkv_bias},
    }
    return (
        shared
        | own[config.architecture]
        | {
            "num_hidden_layers": config.n_layer,
            "num_attention_heads": config.n_head,
            "num_key_value_heads": config.n_kv_head,
            "head_dim": config.head_dim,
            "hidden_size": config.n_embd,
            "intermediate_size": config.n_inner,
            "max_position_embeddings": config.named_positions,
            "hidden_act": _ACTIVATIONS[config.activation],
            "rms_norm_eps": config.norm_eps,
            "rope_theta": config.rope.theta,
            "rope_scaling": _scaling(config.rope, config.head_dim),
        }
    )


def token_ids(bundle: Bundle) -> dict[str, Any]:
    """Return the start and end ids of a model for config.json and generation_config.json."""
    tokenizer = bundle.tokenizer
    ends = sorted(tokenizer.stops)
    start = tokenizer.start_ids[0] if tokenizer.start_ids else None
    if start is None and "bos_token" in tokenizer.names:
        start = tokenizer.id_of(tokenizer.names["bos_token"])
    return {"bos_token_id": start, "eos_token_id": ends[0] if len(ends) == 1 else ends or None}


def generation_json(bundle: Bundle) -> dict[str, Any]:
    """Return generation_config.json: start, ends, and the suggested sampling values that transformers has."""
    content: dict[str, Any] = {key: value for key, value in token_ids(bundle).items() if value is not None}
    known = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
    suggested = {key: value for key, value in bundle.suggested.items() if key in known}
    if suggested.get("temperature") == 0:
        return content | {"do_sample": False}
    if suggested:
        if "top_k" in suggested:
            suggested["top_k"] = int(suggested["top_k"])
        content |= {"do_sample": True, **suggested}
    return content


def _scaling(rope: Rope, head_dim: int) -> dict[str, Any] | None:
    if rope.divisors is not None:
        rope = _llama3_of(rope, head_dim)
    if rope.scaling == "none":
        return None
    table: dict[str, Any] = {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "llama3":
        table |= {
            "low_freq_factor": rope.low_freq_factor,
            "high_freq_factor": rope.high_freq_factor,
            "original_max_position_embeddings": rope.original_context,
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


def _check(written: dict[str, Any], config: ModelConfig) -> None:
    try:
        read = config_from_hf(written)
    except (BadFile, Unsupported) as error:
        raise Unsupported(f"config.json cannot describe this model: {error}: export it as GGUF") from error
    same_rope = (config.rope is None) == (read.rope is None)
    if config.rope is not None and read.rope is not None:
        one, other = config.rope.frequencies(config.head_dim), read.rope.frequencies(config.head_dim)
        same_rope = np.array_equal(one, other)
    plain, plain_read = replace(config, rope=None), replace(read, rope=None)
    lost = [f.name for f in fields(plain) if getattr(plain, f.name) != getattr(plain_read, f.name)]
    if lost or not same_rope:
        raise Unsupported(
            f"config.json of a {config.architecture} cannot express"
            f" {', '.join(lost) or 'its rotary positions'}: export it as GGUF"
        )
