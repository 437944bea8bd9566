"""BYTES: safetensors and GGUF files, read as hostile input, become `Tensor` views of a mapped file.

Nothing here knows an architecture, and nothing here unpickles. Every number from a file is checked against
the file's length before it is used; a lie is one BadFile that says what, got, wanted and the next step.
"""

from __future__ import annotations

from pophood.formats.gguf import GGUFFile, open_gguf
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
