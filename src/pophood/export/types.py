"""The types in which an export stores its tensors: one for all, or for each the type in the base's file.

By default an export keeps the type of each tensor in the base's file (bfloat16, float16, float32), so that
nothing is lost and nothing grows. Tensors that are quantised there are decoded and stored as float32, which
holds every value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pophood.errors import BadInput

FOLDER_TYPES = ("f32", "f16", "bf16")
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
_WIDTH = {"f32": 4, "f16": 2, "bf16": 2}


class StoredTypes(Protocol):
    """The protocol for the base's weights, which `bundle.Weights` implements."""

    def stored_type(self, name: str) -> str:
        """Return the type of a canonical tensor in the file."""


@dataclass(frozen=True, slots=True)
class Types:
    """The type of each tensor of an export.

    `own` maps canonical names to "f32", "f16" or "bf16"; all others have the type `label`, which messages and
    receipts show.

    >>> Types("bf16", {"final_norm.weight": "f32"}).of("final_norm.weight"), Types("f16").of("embed.token")
    ('f32', 'f16')
    """

    label: str
    own: Mapping[str, str] = field(default_factory=dict)

    def of(self, *names: str) -> str:
        """Return the type of a file's tensor that joins these canonical ones; f32 if their types differ."""
        kinds = {self.own.get(name, self.label) for name in names}
        return kinds.pop() if len(kinds) == 1 else "f32"


def types_of_base(weights: StoredTypes, shapes: Mapping[str, tuple[int, ...]]) -> Types:
    """Return each tensor's type in the base's file, f32 for quantised ones.

    The label is that of most bytes.
    """
    kinds = {name: weights.stored_type(name).lower() for name in shapes}
    own = {name: kind if kind in _WIDTH else "f32" for name, kind in kinds.items()}
    sizes: Counter[str] = Counter()
    for name, shape in shapes.items():
        sizes[own[name]] += math.prod(shape) * _WIDTH[own[name]]
    return Types(sizes.most_common(1)[0][0], own)


def chosen(
    kind: str | None, weights: StoredTypes, shapes: Mapping[str, tuple[int, ...]], *, gguf: bool
) -> Types:
    """Return the types of an export: `kind` for all, or the base's own for None.

    BadInput for an unknown kind.
    """
    if kind is None:
        return types_of_base(weights, shapes)
    check_type(kind, gguf=gguf)
    return Types(kind)


def check_type(kind: str, *, gguf: bool) -> None:
    """Raise BadInput for a type that is not written into a folder, or (`gguf`) into a GGUF file."""
    known = GGUF_TYPES if gguf else FOLDER_TYPES
    if kind not in known:
        where = "a GGUF file" if gguf else "a folder"
        raise BadInput(
            f"type {kind!r} cannot be written into {where}; choose one of {', '.join(known)}"
            f"{'' if gguf else ' (name a .gguf file for others)'}"
        )
