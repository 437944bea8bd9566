"""Writes LoRA adapters as PEFT's folders and as llama.cpp's GGUF files.

The readers are `adapters/peft.py` and `adapters/gguf_adapter.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pophood.adapters.adapter import Adapter
from pophood.adapters.gguf_adapter import HALVES
from pophood.adapters.lora_parts import joined_targets
from pophood.adapters.peft import CONFIG, WEIGHTS
from pophood.adapters.peft_names import ROOT
from pophood.config import ModelConfig, tensor_shapes
from pophood.export.gguf.gguf_bytes import EncodedTensor, write_gguf
from pophood.export.quantise import encode
from pophood.families import family_of
from pophood.families.family import Family, split_block
from pophood.families.naming import file_tensors, gguf_architecture, hf_name, permute_rope_rows
from pophood.formats.safetensors_write import write_safetensors
from pophood.system import atomic_write, disk_errors


def write_adapter(
    folder: str | Path, adapter: Adapter, config: ModelConfig, template: str | None = None
) -> None:
    """Write an adapter into a folder as PEFT does, with the chat template that it was trained with, if any.

    GPT-2's q, k and v become one adapter of c_attn (see `lora_parts`). Raises BadInput unless it fits
    `config`.
    """
    folder = Path(folder)
    adapter.check(tensor_shapes(config))
    family = family_of(config)
    pairs = joined_targets(adapter, config, "safetensors")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (a, b) in pairs.items():
        full = hf_name(family.hf_prefix, f"{module}.")[:-1]
        tensors[f"{ROOT}{full}.lora_A.weight"] = ("F32", np.ascontiguousarray(a, np.float32))
        tensors[f"{ROOT}{full}.lora_B.weight"] = ("F32", np.ascontiguousarray(b, np.float32))
    settings = _settings(
        adapter, family, config.n_layer, {module: len(a) for module, (a, _) in pairs.items()}
    )
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    if template is not None:
        atomic_write(folder / "chat_template.jinja", template.encode())
    atomic_write(folder / CONFIG, json.dumps(settings, indent=2, ensure_ascii=False).encode())


def _settings(adapter: Adapter, family: Family, n_layer: int, ranks: dict[str, int]) -> dict[str, Any]:
    rslora = adapter.rank > 1 and math.isclose(adapter.alpha / math.sqrt(adapter.rank), adapter.scale)
    alpha = adapter.alpha if rslora else adapter.scale * adapter.rank
    names = _names(family, n_layer, ranks)
    others = {name: rank for name, rank in names.items() if rank != adapter.rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base.get("name"),
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": _number(alpha),
        "lora_dropout": 0.0,
        "use_rslora": rslora,
        "target_modules": sorted(names),
        "rank_pattern": others,
        "alpha_pattern": {
            name: _number(adapter.scale * (math.sqrt(rank) if rslora else rank))
            for name, rank in others.items()
        },
        "fan_in_fan_out": any(row.conv1d for row in family.tensors),
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
    }


def _names(family: Family, n_layer: int, ranks: dict[str, int]) -> dict[str, int]:
    """Return names for PEFT's lists: "attn.c_attn" if every block has it at one rank, else each in full."""
    kinds: dict[str, dict[str, int]] = {}
    for module, rank in ranks.items():
        kinds.setdefault(split_block(module)[0], {})[module] = rank
    names: dict[str, int] = {}
    for kind, members in kinds.items():
        if len(members) == n_layer and len(set(members.values())) == 1:
            names[kind.partition(".{i}.")[2] or kind] = next(iter(members.values()))
        else:
            names |= {hf_name(family.hf_prefix, f"{module}.")[:-1]: rank for module, rank in members.items()}
    return names


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


def write_adapter_gguf(path: Path, adapter: Adapter, config: ModelConfig) -> dict[str, str]:
    """Write an adapter as one GGUF file; return the sha256 of each tensor.

    BadInput unless it fits `config`.
    """
    adapter.check(tensor_shapes(config))
    pairs = joined_targets(adapter, config, "gguf")
    permuted = {tensor.name for tensor in file_tensors(config, "gguf") if tensor.pairs}
    alpha, factor = _alpha(adapter, {len(a) for a, _ in pairs.values()})
    encoded: list[EncodedTensor] = []
    for name, (a, b) in pairs.items():
        outputs = permute_rope_rows(b, config.head_dim) if f"{name}.weight" in permuted else b
        scaled = outputs if factor == 1 else (outputs * np.float64(factor)).astype(np.float32)
        for half, values in zip(HALVES, (a, scaled), strict=True):
            make = partial(encode, "F32", values, name)
            encoded.append(EncodedTensor(f"{name}.weight{half}", "F32", values.shape, make))
    metadata = {
        "general.architecture": gguf_architecture(config),
        "general.type": "adapter",
        "general.name": adapter.name,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(alpha),
    }
    write_gguf(path, metadata, encoded)
    return {tensor.name: hashlib.sha256(tensor.make().data).hexdigest() for tensor in encoded}


def _alpha(adapter: Adapter, ranks: set[int]) -> tuple[float, float]:
    """Return (alpha in the file, factor for B); the file stores alpha as float32."""
    alpha = adapter.scale * max(ranks, default=1)
    if len(ranks) == 1 and alpha != 0 and float(np.float32(alpha)) == alpha:
        return alpha, 1.0
    return 0.0, adapter.scale
