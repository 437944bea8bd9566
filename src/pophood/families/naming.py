"""Canonical tensors under the names and in the layout of a file: the inverse of `families.locate`.

GPT-2's q, k and v are joined to one tensor; Hugging Face's GPT-2 stores matrices as [in, out]; GGUF's Llama
permutes the rows of each query and key head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, Rope, tensor_shapes
from pophood.errors import Unsupported
from pophood.families import family_of
from pophood.families.family import FileFormat, TensorName, rows_of

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor of a file: the canonical ones that it joins, and their layout."""

    name: str
    shape: tuple[int, ...]  # in the file, rows first
    parts: tuple[str, ...]  # canonical names, joined along the outputs
    conv1d: bool = False
    pairs: int = 0  # head_dim, if the rows are permuted for RoPE
    by_head: int = 0  # head_dim, if the parts lie side by side within each head
    less_one: bool = False

    def values(self, get: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
        """Return the values in the file's layout; `get` returns a canonical tensor, [out, in] or [n]."""
        whole = [get(part) for part in self.parts]
        if self.by_head:
            heads = [part.reshape(-1, self.by_head, *part.shape[1:]) for part in whole]
            return np.concatenate(heads, axis=1).reshape(self.shape)
        joined = whole[0] if len(whole) == 1 else np.concatenate(whole)
        if self.less_one:
            return np.asarray(joined, np.float32) - np.float32(1.0)
        if self.pairs:
            joined = permute_rope_rows(joined, self.pairs)
        return np.ascontiguousarray(joined.T) if self.conv1d else joined


def permute_rope_rows(values: NDArray[Number], head_dim: int) -> NDArray[Number]:
    """Reorder the rows of each head from 0, 1, 2... to 0, D/2, 1, D/2+1... (GGUF's Llama).

    This is the inverse of `family.unpermute_rope_rows`.

    >>> permute_rope_rows(np.arange(4), head_dim=4).tolist()
    [0, 2, 1, 3]
    """
    halves = values.reshape(values.shape[0] // head_dim, 2, head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def file_tensors(config: ModelConfig, file_format: FileFormat) -> list[FileTensor]:
    """List the tensors of a model's file in the order of use: `file_tensors(gpt2, "gguf")[2].parts`."""
    family, shapes = family_of(config), tensor_shapes(config)
    joined: dict[str, list[tuple[TensorName, str]]] = {}
    for canonical, (row, i) in rows_of(family, config).items():
        name = (row.gguf if file_format == "gguf" else hf_name(family.hf_prefix, row.hf)).format(i=i)
        joined.setdefault(name, []).append((row, canonical))
    tensors = []
    for name, members in joined.items():
        members.sort(key=lambda member: member[0].part)
        row, parts = members[0][0], tuple(canonical for _, canonical in members)
        shape = (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:])
        conv1d = row.conv1d and file_format == "safetensors"
        pairs = config.head_dim if row.gguf_pairs and file_format == "gguf" else 0
        by_head = config.head_dim if row.by_head and file_format == "safetensors" else 0
        less_one = row.less_one and file_format == "safetensors"
        shape = shape[::-1] if conv1d else shape
        tensors.append(FileTensor(name, shape, parts, conv1d, pairs, by_head, less_one))
    return tensors


def gguf_architecture(config: ModelConfig) -> str:
    """Return `general.architecture` of the model's GGUF files; Unsupported if there are no such files."""
    family = family_of(config)
    why = family.gguf_unsaid(config) if family.gguf_name else "llama.cpp has no such models"
    if config.rope is not None and config.rope.scaling == "yarn" and not config.rope.truncate:
        why = "llama.cpp rounds the bounds of yarn to whole pairs"
    if why:
        raise Unsupported(
            f"GGUF cannot express this {config.architecture}: {why}: export it to a folder (safetensors)"
        )
    return family.gguf_name


def rotary_tensors(config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a GGUF file that hold divisors of rotary frequencies, [R/2] each."""
    rope, divisors = config.rope, rotary_divisors(config)
    if divisors is not None:
        return {"rope_freqs.weight": divisors}
    if rope is None or rope.long_divisors is None or rope.divisors is None:
        return {}
    return {
        "rope_factors_long.weight": np.array(rope.long_divisors, np.float32),
        "rope_factors_short.weight": np.array(rope.divisors, np.float32),
    }


def hf_name(prefix: str, name: str) -> str:
    """Return Hugging Face's full name: every name but that of the output matrix gets the prefix."""
    return name if name.startswith(("lm_head.", "embed_out.")) else prefix + name


def rotary_divisors(config: ModelConfig) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Return the values of rope_freqs.weight [D/2], or None if no table scales the rotary positions."""
    rope = config.rope
    if rope is None or rope.long_divisors is not None:
        return None
    if rope.divisors is not None:
        return np.array(rope.divisors, np.float32)
    if rope.scaling == "llama3":
        return rope.llama3_divisors(Rope(rope.theta).frequencies(config.head_dim))
    return None
