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
from pophood.config import ModelConfig
from pophood.export.gguf.gguf_bytes import EncodedTensor, write_gguf
from pophood.export.gguf.gguf_tokenizer import tokenizer_keys
from pophood.export.merged import Merged, source_metadata
from pophood.export.quantise import encode
from pophood.export.types import Types
from pophood.families.naming import ARCHITECTURES, FileTensor, file_tensors, rotary_divisors
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
    divisors = rotary_divisors(bundle.config)
    if divisors is not None:
        plans.append(("rope_freqs.weight", "F32", divisors.shape, lambda: divisors))
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
        "general.architecture": ARCHITECTURES.get(bundle.config.architecture, bundle.config.architecture),
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
    keys: dict[str, Any] = {
        "block_count": config.n_layer,
        "context_length": _context(config),
        "embedding_length": config.n_embd,
        "feed_forward_length": config.n_inner,
        "attention.head_count": config.n_head,
    }
    if config.rope is None:
        keys["attention.layer_norm_epsilon"] = float(config.norm_eps)
    else:
        keys |= {
            "attention.head_count_kv": config.n_kv_head,
            "attention.layer_norm_rms_epsilon": float(config.norm_eps),
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "vocab_size": config.vocab_size,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": float(config.rope.theta),
        }
        if config.limit is not None and config.limit.window is not None:
            keys["attention.sliding_window"] = config.limit.window
        if config.rope.scaling == "linear":
            keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(config.rope.factor)}
    prefix = ARCHITECTURES.get(config.architecture, config.architecture)
    return {f"{prefix}.{key}": value for key, value in keys.items()}


def _context(config: ModelConfig) -> int:
    """Return the context for the file.

    It ends where dynamic scaling, which GGUF cannot express, would start.
    """
    if config.rope is not None and config.rope.scaling == "dynamic":
        return min(config.named_positions, config.rope.original_context)
    return config.named_positions


def _notes(config: ModelConfig) -> list[str]:
    if config.rope is None or config.rope.scaling != "dynamic":
        return []
    return [
        "GGUF cannot express dynamic scaling of rotary positions: the file is for"
        f" {_context(config):,} positions"
    ]
