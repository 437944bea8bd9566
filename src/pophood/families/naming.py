"""Canonical tensors under a file's names and in its layout: the inverse of `families.locate`.

GPT-2's q, k and v are joined to one tensor; Hugging Face's GPT-2 stores matrices [in, out]; GGUF's Llama has
the rows of each query and key head in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, Rope, tensor_shapes
from pophood.families import family_of
from pophood.families.family import FileFormat, TensorName, numbered

Number = TypeVar("Number", bound=np.generic)
ARCHITECTURES = {"mistral": "llama"}  # GGUF knows these families by another name


@dataclass(frozen=True, slots=True)
class FileTensor:
    """One tensor of a file: the canonical ones that it joins, and how it lays them out."""

    name: str
    shape: tuple[int, ...]  # as the file has it, rows first
    parts: tuple[str, ...]  # canonical names, joined along the outputs
    conv1d: bool = False
    pairs: int = 0  # head_dim, where rotary partners stand side by side

    def values(self, get: Callable[[str], NDArray[Any]]) -> NDArray[Any]:
        """The values in the file's layout; `get` gives those of a canonical name, [out, in] or [n]."""
        whole = [get(part) for part in self.parts]
        joined = whole[0] if len(whole) == 1 else np.concatenate(whole)
        if self.pairs:
            joined = together(joined, self.pairs)
        return np.ascontiguousarray(joined.T) if self.conv1d else joined


def together(values: NDArray[Number], head_dim: int) -> NDArray[Number]:
    """Rows of each head from 0, 1, 2... to 0, D/2, 1, D/2+1... (GGUF's Llama): `family.apart` undone.

    >>> together(np.arange(4), head_dim=4).tolist()
    [0, 2, 1, 3]
    """
    halves = values.reshape(values.shape[0] // head_dim, 2, head_dim // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def rows_of(config: ModelConfig) -> dict[str, tuple[TensorName, int]]:
    """Canonical name -> its row in the family's table of names, and the number of its block (or -1)."""
    table = {row.canonical: row for row in family_of(config).tensors}
    found = {name: numbered(name) for name in tensor_shapes(config)}
    return {name: (table[pattern], i) for name, (pattern, i) in found.items()}


def file_tensors(config: ModelConfig, file_format: FileFormat) -> list[FileTensor]:
    """Every tensor of a model's file, in the order of use: `file_tensors(gpt2, "gguf")[2].parts`."""
    family, shapes = family_of(config), tensor_shapes(config)
    joined: dict[str, list[tuple[TensorName, str]]] = {}
    for canonical, (row, i) in rows_of(config).items():
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
    """Hugging Face's full name: everything but lm_head stands below the prefix."""
    return name if name.startswith("lm_head.") else prefix + name


def rotary_divisors(config: ModelConfig) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """The values of rope_freqs.weight [D/2], or None where the rotary positions are not scaled by a table."""
    rope = config.rope
    if rope is None:
        return None
    if rope.divisors is not None:
        return np.array(rope.divisors, np.float32)
    if rope.scaling == "llama3":
        return rope.llama3_divisors(Rope(rope.theta).frequencies(config.head_dim))
    return None
