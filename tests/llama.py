"""llama.cpp as an oracle: its weights as they are in the file.

On a processor with AMX llama.cpp lays 8 and 4-bit weights out anew, and its product of small matrices
then crashes (llama-cpp-python 0.3.36, a model of 64 features). A reference needs no speed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock


def open_llama(path: Path, **options: Any) -> Any:
    """`llama_cpp.Llama` of a file, without weights laid out for the processor."""
    import llama_cpp
    from llama_cpp import llama_cpp as library

    defaults = library.llama_model_default_params

    def plain() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    with mock.patch.object(library, "llama_model_default_params", plain):
        return llama_cpp.Llama(str(path), verbose=False, **options)
