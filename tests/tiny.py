"""Random models of every family: as a Hugging Face folder, and as GGUF with the same values.

`tiny_folder(path, "llama")`, `tiny_gguf(path, "llama")`; "gpt2-xl" has the published shape.
Names and layouts are repeated here on purpose, independent of the package: transformers reads the folders,
llama.cpp the GGUF files, and tests compare pophood with both.
"""

from __future__ import annotations

from tests.tiny_folder import hf_config, reference, tiny_folder, write_safetensors
from tests.tiny_gguf import tiny_gguf
from tests.tiny_values import FAMILIES, GPT2_SIZES, Entry, Values, gpt2_config, tiny_config
from tests.tiny_vocabulary import vocabulary

__all__ = [
    "FAMILIES",
    "GPT2_SIZES",
    "Entry",
    "Values",
    "gpt2_config",
    "hf_config",
    "reference",
    "tiny_config",
    "tiny_folder",
    "tiny_gguf",
    "vocabulary",
    "write_safetensors",
]
