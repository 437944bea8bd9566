"""The files that a bundle was opened from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pophood.formats import open_gguf
from pophood.formats.sniff import weights_at
from pophood.model.bundle import Bundle


def source_weights(bundle: Bundle) -> Path:
    """The weights file: a .safetensors file, the index or first of several, or the (first) GGUF file."""
    return weights_at(bundle.path)


def source_folder(bundle: Bundle) -> Path:
    """The folder that holds config.json and the tokenizer."""
    return source_weights(bundle).parent


def source_metadata(bundle: Bundle) -> Mapping[str, Any]:
    """The metadata of a GGUF source; {} of a folder."""
    return open_gguf(source_weights(bundle)).metadata if bundle.file_format == "gguf" else {}
