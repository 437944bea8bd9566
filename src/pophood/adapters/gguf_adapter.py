"""Reads LoRA adapters from llama.cpp's GGUF files.

A tensor pair is named after the matrix that it changes: `blk.0.attn_q.weight.lora_a` [r, in] and `.lora_b`
[out, r] (rows first). GPT-2's matrices are [out, in] here, unlike in Hugging Face, so nothing is transposed.
The rows of B follow those of the matrix: Llama's q and k are permuted as the weights are.

llama.cpp multiplies by alpha / rank, or by 1 if alpha is 0. One alpha serves all pairs, so if their ranks
differ (GPT-2's joined q, k, v), alpha is 0 and B includes the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pophood.adapters.adapter import Adapter, Pair
from pophood.adapters.lora_parts import split
from pophood.adapters.peft import MOST_ALPHA
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadFile, Unsupported, short
from pophood.families.family import unpermute_rope_rows
from pophood.families.naming import file_tensors, gguf_architecture, rotary_divisors
from pophood.formats import Tensor, open_gguf

HALVES = (".lora_a", ".lora_b")


def read_adapter_gguf(path: str | Path, config: ModelConfig) -> Adapter:
    """Read the adapter in a GGUF file for a model of this config.

    Raises BadFile for damage, Unsupported for anything but LoRA and for another architecture or size.
    """
    path = Path(path)
    file = open_gguf(path)
    wanted = gguf_architecture(config)
    kinds = {key: file.metadata.get(key) for key in ("general.type", "adapter.type", "general.architecture")}
    if list(kinds.values()) != ["adapter", "lora", wanted]:
        raise Unsupported(
            f"{path}: says {short(kinds)}; wanted an adapter of type lora for {wanted}: name such a file"
        )
    alpha = file.metadata.get("adapter.lora.alpha", 0.0)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= MOST_ALPHA:
        raise BadFile(f"{path}: adapter.lora.alpha is {short(alpha)}; wanted a number")
    for key in file.metadata:
        if key.startswith("adapter.alora."):
            raise Unsupported(
                f"{path}: {key} starts the adapter at certain tokens; pophood applies adapters from the first"
                " token on: use it with llama.cpp"
            )
    pairs = _pairs(_without_table(file.tensors, config), config, path)
    ranks = [len(a) for a, _ in pairs.values()]
    rank = max(ranks, key=ranks.count, default=1)
    scale = alpha / rank if alpha else 1.0
    known = {tensor.name: tensor for tensor in file_tensors(config, "gguf")}
    targets: dict[str, Pair] = {}
    for name, (a, b) in pairs.items():
        if alpha and len(a) != rank:
            b = (b * np.float64(rank / len(a))).astype(np.float32)
        if known[name].pairs:
            b = unpermute_rope_rows(b, config.head_dim)
        parts = known[name].parts
        sizes = [tensor_shapes(config)[part][0] for part in parts]
        if sum(sizes) != len(b):
            raise BadFile(f"{path}: {short(name)} has {len(b):,} outputs, wanted {sum(sizes):,}")
        for k, pair in split((a, b), sizes).items():
            targets[parts[k].removesuffix(".weight")] = pair
    return Adapter(path.stem, rank, scale * rank, scale, targets)


def _without_table(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Leave out a rope_freqs.weight that equals the base model's, which older converters copied."""
    own = rotary_divisors(config)
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not (name == "rope_freqs.weight" and own is not None and np.array_equal(tensor.decode(), own))
    }


def _pairs(tensors: Mapping[str, Tensor], config: ModelConfig, path: Path) -> dict[str, Pair]:
    """Return the two halves of each matrix's change, checked against this model."""
    shapes = {tensor.name: tensor.shape for tensor in file_tensors(config, "gguf") if len(tensor.shape) == 2}
    pairs: dict[str, Pair] = {}
    for name in dict.fromkeys(name.removesuffix(HALVES[0]).removesuffix(HALVES[1]) for name in tensors):
        a, b = (tensors.get(name + half) for half in HALVES)
        if a is None or b is None or name not in shapes or name == "token_embd.weight":
            raise Unsupported(
                f"{path}: changes {short(name)}; wanted lora_a and lora_b of matrices of this model's blocks"
            )
        rank = a.shape[0] if a.shape else 0
        if (a.shape, b.shape) != ((rank, shapes[name][1]), (shapes[name][0], rank)):
            raise Unsupported(
                f"{path}: changes {short(name)} by {b.shape} x {a.shape}; the model's is {shapes[name]}: name"
                " the model that the adapter was made for"
            )
        pairs[name] = (a.decode(), b.decode())
    return pairs
