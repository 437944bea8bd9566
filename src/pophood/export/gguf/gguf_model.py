"""Writes a model as one GGUF file: its architecture in llama.cpp's keys, its tokenizer, and its tensors.

Matrices get the requested type. Norms, biases and position vectors stay f32, as in llama.cpp's own converter.
With the 4-bit types, the token and output matrices are q8_0, because every logit depends on them (llama.cpp
uses 6 bits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Floats
from pophood.config import ModelConfig, Rope
from pophood.export.gguf.gguf_bytes import EncodedTensor, write_gguf
from pophood.export.gguf.gguf_tokenizer import tokenizer_keys
from pophood.export.merged import Merged, source_metadata
from pophood.export.quantise import encode
from pophood.export.types import Types
from pophood.families import gguf_family
from pophood.families.keys import Used
from pophood.families.naming import FileTensor, file_tensors, gguf_architecture, rotary_tensors
from pophood.families.rope import DEFAULT_THETA, yarn_magnitude
from pophood.model.bundle import Bundle

_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "bf16": 32}  # enum llama_ftype
_SUGGESTIONS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
    "penalty_window": "penalty_last_n",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
}
_NOT_CARRIED = ("architecture", "name", "type", "file_type", "quantization_version", "alignment")


def write_model(
    bundle: Bundle,
    merged: Merged,
    path: Path,
    types: Types,
    template: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Write a GGUF file; return the sha256 of each tensor's bytes by name, and notes.

    Raises Unsupported for a tokenizer or values that the file cannot hold, BadInput for rows whose length
    does not fit the type.
    """
    keys, notes = tokenizer_keys(bundle, template)
    metadata = _general(bundle, types.label) | architecture_keys(bundle.config) | keys
    plans: list[tuple[str, str, tuple[int, ...], Callable[[], Floats]]] = [
        (one.name, stored_type(one, types.of(*one.parts)), one.shape, partial(one.values, merged))
        for one in file_tensors(bundle.config, "gguf")
    ]
    for name, divisors in rotary_tensors(bundle.config).items():
        plans.append((name, "F32", divisors.shape, partial(np.array, divisors)))
    done: dict[str, Any] = {}

    def make(name: str, type_: str, values: Callable[[], Floats]) -> NDArray[np.uint8]:
        if progress is not None:
            progress(len(done), len(plans))
        done[name] = hashlib.sha256()
        return encode(type_, values(), name)

    encoded = [
        EncodedTensor(name, type_, shape, partial(make, name, type_, values))
        for name, type_, shape, values in plans
    ]
    write_gguf(path, metadata, encoded, lambda name, piece: done[name].update(piece))
    return {name: digest.hexdigest() for name, digest in done.items()}, notes + _notes(bundle.config)


def stored_type(tensor: FileTensor, kind: str) -> str:
    """Return the GGUF type of a tensor: `stored_type(norm, "q8_0") == "F32"`."""
    if len(tensor.shape) == 1 or tensor.parts == ("embed.position",):
        return "F32"
    if kind.startswith("q4") and tensor.parts[0] in ("embed.token", "output.weight"):
        return "Q8_0"
    return kind.upper()


def _general(bundle: Bundle, kind: str) -> dict[str, Any]:
    general: dict[str, Any] = {
        "general.architecture": gguf_architecture(bundle.config),
        "general.type": "model",
        "general.name": bundle.name,
        "general.file_type": _FILE_TYPES[kind],
    }
    if kind.startswith("q"):
        general["general.quantization_version"] = 2
    for key, value in source_metadata(bundle).items():
        short = key.removeprefix("general.")
        if key.startswith("general.") and isinstance(value, str) and short not in _NOT_CARRIED:
            general[key] = value
    if bundle.licence is not None:
        general.setdefault("general.license", bundle.licence)
    for ours, theirs in _SUGGESTIONS.items():
        if ours in bundle.suggested:
            value = bundle.suggested[ours]
            whole = ours in ("top_k", "penalty_window")
            general[f"general.sampling.{theirs}"] = int(value) if whole else float(value)
    return general


def architecture_keys(config: ModelConfig) -> dict[str, Any]:
    """Return the architecture in llama.cpp's keys: `architecture_keys(gpt2)["gpt2.block_count"] == 12`."""
    norm = "layer_norm_epsilon" if config.norm == "layer" else "layer_norm_rms_epsilon"
    keys: dict[str, Any] = {
        "block_count": config.n_layer,
        "context_length": _context(config),
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner,
        "attention.head_count": config.n_head,
        f"attention.{norm}": float(config.norm_eps),
    }
    if config.rope is not None:
        if "attention.key_length" in gguf_family(config).gguf_keys:
            keys |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
        keys |= {
            "attention.head_count_kv": config.n_kv_head,
            "vocab_size": config.vocab_size,
            "rope.dimension_count": config.rope.rotated(config.head_dim),
            "rope.freq_base": float(config.rope.theta),
        }
        keys |= _scaling_keys(config.rope) | _window_keys(config) | _scale_keys(config)
    prefix = gguf_architecture(config)
    return {f"{prefix}.{key}": value for key, value in keys.items()}


def _scaling_keys(rope: Rope) -> dict[str, Any]:
    if rope.scaling == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope.factor)}
    if rope.scaling == "longrope":
        return {
            "rope.scaling.original_context_length": rope.original_context,
            "rope.scaling.attn_factor": float(rope.magnitude),
        }
    if rope.scaling != "yarn":
        return {}
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(rope.factor),
        "rope.scaling.original_context_length": rope.original_context,
        "rope.scaling.attn_factor": float(rope.magnitude / yarn_magnitude(rope.factor)),
        "rope.scaling.yarn_beta_fast": float(rope.beta_fast),
        "rope.scaling.yarn_beta_slow": float(rope.beta_slow),
    }


def _window_keys(config: ModelConfig) -> dict[str, Any]:
    """Return the width of the windows, and which blocks have one, unless that is the default."""
    slides = [block.window is not None for block in config.block_attention]
    every = gguf_family(config).gguf_defaults.get("window_pattern")
    if not any(slides):
        return {} if every is None else {"attention.sliding_window": 0}
    keys: dict[str, Any] = {
        "attention.sliding_window": next(b.window for b in config.block_attention if b.window)
    }
    usual = [every is None or (i + 1) % every != 0 for i in range(config.n_layer)]
    if slides != usual:
        keys["attention.sliding_window_pattern"] = np.array(slides)
    local = next(block.rope for block in config.block_attention if block.window)
    if local is not None and local != config.rope and local.theta != DEFAULT_THETA:
        keys["rope.freq_base_swa"] = float(local.theta)
    return keys


def _scale_keys(config: ModelConfig) -> dict[str, Any]:
    """Return caps, multipliers and the order of the parts, for architectures that have such keys."""
    known = gguf_family(config).gguf_keys
    values: dict[str, Any] = {
        "attn_logit_softcapping": config.score_cap or 0.0,
        "final_logit_softcapping": config.logit_cap or 0.0,
        "embedding_scale": float(config.embedding_scale),
        "residual_scale": float(config.residual_scale),
        "logit_scale": float(config.logit_divisor),
        "use_parallel_residual": config.parallel,
    }
    keys = {key: value for key, value in values.items() if isinstance(known.get(key), Used)}
    scale = {} if config.attention_scale is None else {"attention.scale": float(config.attention_scale)}
    return keys | scale


def _context(config: ModelConfig) -> int:
    """Return the context for the file: it ends where the positions end that GGUF can express."""
    return config.n_positions if config.limit else config.named_positions


def _notes(config: ModelConfig) -> list[str]:
    dynamic = config.rope is not None and config.rope.scaling == "dynamic"
    if config.limit is None and not dynamic:
        return []
    if dynamic:
        what = "GGUF cannot express dynamic scaling of rotary positions"
    else:
        what = "a window that transformers ignores is left out"
    return [f"{what}: the file is for {_context(config):,} positions"]
