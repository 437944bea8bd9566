"""The types in which an export stores its tensors: one for all, or for each the one that the base's file has.

Left alone, an export stores what the base stores: bfloat16 stays bfloat16, float16 stays float16, float32
stays float32, tensor by tensor, so that nothing is lost and nothing grows. What the base has quantised is
decoded, and stored as float32, which holds every value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pophood.errors import BadInput

FOLDER_TYPES = ("f32", "f16", "bf16")
GGUF_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
_WHOLE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_WIDTH = {"f32": 4, "f16": 2, "bf16": 2}


class StoredTypes(Protocol):
    """The methods that an export needs of the base's weights: `bundle.Weights` has them."""

    def stored_type(self, name: str) -> str:
        """The type in the file of a canonical name."""


@dataclass(frozen=True, slots=True)
class Types:
    """`label` is the type that is named in messages and receipts, and that holds where `own` has no entry.

    `own`: canonical name -> "f32", "f16" or "bf16".

    >>> Types("bf16", {"final_norm.weight": "f32"}).of("final_norm.weight"), Types("f16").of("embed.token")
    ('f32', 'f16')
    """

    label: str
    own: Mapping[str, str] = field(default_factory=dict)

    def of(self, *names: str) -> str:
        """The type of a tensor of the file that joins these canonical ones; f32 where theirs differ."""
        kinds = {self.own.get(name, self.label) for name in names}
        return kinds.pop() if len(kinds) == 1 else "f32"


def types_of_base(weights: StoredTypes, shapes: Mapping[str, tuple[int, ...]]) -> Types:
    """Every tensor in the type that the base's file has, a quantised one in f32; labelled by most bytes."""
    own = {name: _WHOLE.get(weights.stored_type(name), "f32") for name in shapes}
    sizes: Counter[str] = Counter()
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        sizes[own[name]] += count * _WIDTH[own[name]]
    return Types(sizes.most_common(1)[0][0], own)


def chosen(
    kind: str | None, weights: StoredTypes, shapes: Mapping[str, tuple[int, ...]], *, gguf: bool
) -> Types:
    """The types of an export: `kind` for all, or those of the base for None. BadInput for an unknown kind."""
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
            f"type {kind!r} is not written into {where}; there are: {', '.join(known)}"
            f"{'' if gguf else ' (name a .gguf file for the others)'}"
        )
