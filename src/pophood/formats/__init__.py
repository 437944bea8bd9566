"""Readers of safetensors and GGUF files: hostile input becomes `Tensor` views of a mapped file.

Nothing here knows an architecture, and nothing is unpickled. Every number from a file is checked against the
file's length before it is used; a wrong one is a BadFile that says what, got, wanted and the next step.

Names are imported on first use: the hub identifies files with `sniff`, which does not need NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pophood.formats.gguf import GGUFFile
    from pophood.formats.gguf_split import open_gguf
    from pophood.formats.safetensors import SafetensorsFile, open_safetensors, open_sharded
    from pophood.formats.sniff import confined, find_weights, identify
    from pophood.formats.tensors import Tensor

__all__ = [
    "GGUFFile",
    "SafetensorsFile",
    "Tensor",
    "confined",
    "find_weights",
    "identify",
    "open_gguf",
    "open_safetensors",
    "open_sharded",
]

_NAMES = {
    "gguf": ("GGUFFile",),
    "gguf_split": ("open_gguf",),
    "safetensors": ("SafetensorsFile", "open_safetensors", "open_sharded"),
    "sniff": ("confined", "find_weights", "identify"),
    "tensors": ("Tensor",),
}


def __getattr__(name: str) -> Any:
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"pophood.formats.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
