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
from pophood.families import family_of
from pophood.families.family import FileFormat, TensorName, rows_of

Number = TypeVar("Number", bound=np.generic)
ARCHITECTURES = {"mistral": "llama"}  # families with another name in GGUF


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor of a file: the canonical ones that it joins, and their layout."""

    name: str
    shape: tuple[int, ...]  # in the file, rows first
    parts: tuple[str, ...]  # canonical names, joined along the outputs
    conv1d: bool = False
    pairs: int = 0  # head_dim, if the rows are permuted for RoPE

    def values(self, get: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
        """Return the values in the file's layout; `get` returns a canonical tensor, [out, in] or [n]."""
        whole = [get(part) for part in self.parts]
        joined = whole[0] if len(whole) == 1 else np.concatenate(whole)
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
        row, parts = members[0][0], tuple(canonical for _, canonical in members)
        shape = (sum(shapes[part][0] for part in parts), *shapes[parts[0]][1:])
        conv1d = row.conv1d and file_format == "safetensors"
        pairs = config.head_dim if row.gguf_pairs and file_format == "gguf" else 0
        tensors.append(FileTensor(name, shape[::-1] if conv1d else shape, parts, conv1d, pairs))
    return tensors


def hf_name(prefix: str, name: str) -> str:
    """Return Hugging Face's full name: every name but lm_head gets the prefix."""
    return name if name.startswith("lm_head.") else prefix + name


def rotary_divisors(config: ModelConfig) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Return the values of rope_freqs.weight [D/2], or None if no table scales the rotary positions."""
    rope = config.rope
    if rope is None:
        return None
    if rope.divisors is not None:
        return np.array(rope.divisors, np.float32)
    if rope.scaling == "llama3":
        return rope.llama3_divisors(Rope(rope.theta).frequencies(config.head_dim))
    return None
