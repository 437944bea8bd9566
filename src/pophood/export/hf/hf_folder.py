"""Writes a model as a Hugging Face folder: model.safetensors, config.json, tokenizer, template, suggestions.

There is one weights file, whatever its size: no model that runs on a laptop needs shards. A tied output
matrix is written once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Floats
from pophood.errors import Unsupported
from pophood.export.hf.hf_config import config_json
from pophood.export.hf.hf_tokenizer import write_tokenizer
from pophood.export.merged import Merged
from pophood.export.quantise import to_bfloat16, widened
from pophood.export.types import Types
from pophood.families.naming import FileTensor, file_tensors
from pophood.formats.safetensors_write import Pending, write_safetensors
from pophood.model.bundle import Bundle
from pophood.system import atomic_write

WEIGHTS = "model.safetensors"
Digests = dict[str, str]  # name of a tensor in its file -> sha256 of the bytes that were written


def write_folder(
    bundle: Bundle,
    merged: Merged,
    folder: Path,
    types: Types,
    template: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Digests, list[str]]:
    """Write everything but the receipt into an existing folder; return the digests of the tensors, and notes.

    Raises Unsupported for a setting that the files cannot express and for a value that a type cannot hold.
    """
    settings = json.dumps(config_json(bundle, types.label), indent=2, ensure_ascii=False)
    atomic_write(folder / "config.json", settings.encode())
    notes = write_tokenizer(bundle, folder, template)
    digests = write_weights(merged, folder / WEIGHTS, types, progress)
    return digests, notes


def write_weights(
    merged: Merged, path: Path, types: Types, progress: Callable[[int, int], object] | None = None
) -> Digests:
    """Write only the weights, in Hugging Face's names and layout."""
    tensors = file_tensors(merged.config, "safetensors")
    done: dict[str, Any] = {}

    def make(tensor: FileTensor) -> NDArray[Any]:
        if progress is not None:
            progress(len(done), len(tensors))
        done[tensor.name] = hashlib.sha256()
        return narrowed(tensor.values(merged), types.of(*tensor.parts), tensor.name)

    pending = {
        tensor.name: Pending(types.of(*tensor.parts).upper(), tensor.shape, partial(make, tensor))
        for tensor in tensors
    }
    write_safetensors(path, pending, {"format": "pt"}, wrote=lambda name, piece: done[name].update(piece))
    return {name: digest.hexdigest() for name, digest in done.items()}


def narrowed(values: Floats, kind: str, name: str) -> NDArray[Any]:
    """Convert float32 values to "f32", "f16" or "bf16" (uint16 bits), rounding to nearest, ties to even.

    Raises Unsupported for a finite value beyond the range of the type.
    """
    if kind == "f32":
        return values
    with np.errstate(over="ignore"):
        bits: NDArray[Any] = to_bfloat16(values) if kind == "bf16" else values.astype(np.float16)
    infinite = np.isinf(widened(bits) if kind == "bf16" else bits)
    if (infinite & np.isfinite(values)).any():
        ends, other = ("3.39e38", "f32") if kind == "bf16" else ("65,504", "f32 or bf16")
        raise Unsupported(
            f"tensor {name} holds {float(np.abs(values).max()):g}; {kind} ends at {ends}: choose --type"
            f" {other}"
        )
    return bits


def rounded(values: Floats, kind: str, name: str) -> Floats:
    """Return the values that a reader gets back from `narrowed(values, kind, name)`."""
    bits = narrowed(values, kind, name)
    return widened(bits) if kind == "bf16" else bits.astype(np.float32, copy=False)
