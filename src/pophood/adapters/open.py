"""Opens an adapter in either format, and finds its chat template (small: dispatches to the two readers)."""

from __future__ import annotations

from pathlib import Path

from pophood.adapters.adapter import Adapter
from pophood.adapters.gguf_adapter import read_adapter_gguf
from pophood.adapters.peft import CONFIG, read_adapter
from pophood.config import ModelConfig, tensor_shapes
from pophood.formats import identify
from pophood.text.chat.chat_template import load_template_folder


def open_adapter(path: str | Path, config: ModelConfig) -> Adapter:
    """Open the adapter in a PEFT folder or a GGUF file, and check it against the config of its model."""
    path = Path(path)
    if path.is_file() and path.suffix != ".gguf" and identify(path) == "safetensors":
        path = path.parent
    adapter = read_adapter_gguf(path, config) if path.is_file() else read_adapter(path, config)
    adapter.check(tensor_shapes(config))
    return adapter


def template_of(path: str | Path) -> str | None:
    """Return the chat template in an adapter's folder, or None.

    `pophood tune` writes one if the model has none, and users of PEFT save the tokenizer beside the adapter.
    Raises BadFile for a template that is not text.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not (folder / CONFIG).is_file():
        return None
    template = load_template_folder(folder, {})
    return None if template is None else template.source
