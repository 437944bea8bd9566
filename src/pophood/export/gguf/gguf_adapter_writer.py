"""Writes LoRA adapters as llama.cpp's GGUF files; `adapters/gguf_adapter.py` reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pophood.adapters.adapter import Adapter
from pophood.adapters.gguf_adapter import HALVES
from pophood.adapters.lora_parts import joined_targets
from pophood.config import ModelConfig, tensor_shapes
from pophood.export.gguf.gguf_bytes import Encoded, write_gguf
from pophood.export.quantise import encode
from pophood.families.naming import ARCHITECTURES, file_tensors, together


def write_adapter_gguf(path: Path, adapter: Adapter, config: ModelConfig) -> dict[str, str]:
    """Write an adapter as one GGUF file; sha256 of each tensor's bytes. BadInput unless it fits `config`."""
    adapter.check(tensor_shapes(config))
    pairs = joined_targets(adapter, config, "gguf")
    permuted = {tensor.name for tensor in file_tensors(config, "gguf") if tensor.pairs}
    alpha, factor = _alpha(adapter, {len(a) for a, _ in pairs.values()})
    encoded: list[Encoded] = []
    for name, (a, b) in pairs.items():
        outputs = together(b, config.head_dim) if f"{name}.weight" in permuted else b
        scaled = outputs if factor == 1 else (outputs * np.float64(factor)).astype(np.float32)
        for half, values in zip(HALVES, (a, scaled), strict=True):
            data = encode("F32", values, name)
            encoded.append(Encoded(f"{name}.weight{half}", "F32", values.shape, lambda d=data: d))  # type: ignore[misc]
    metadata = {
        "general.architecture": ARCHITECTURES.get(config.architecture, config.architecture),
        "general.type": "adapter",
        "general.name": adapter.name,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    write_gguf(path, metadata, encoded)
    return {tensor.name: hashlib.sha256(tensor.make().data).hexdigest() for tensor in encoded}


def _alpha(adapter: Adapter, ranks: set[int]) -> tuple[float, float]:
    """(alpha of the file, what B is multiplied by); alpha is float32 there."""
    alpha = adapter.scale * max(ranks, default=1)
    if len(ranks) == 1 and alpha != 0 and float(np.float32(alpha)) == alpha:
        return alpha, 1.0
    return 0.0, adapter.scale
