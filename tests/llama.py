"""llama.cpp as an oracle, with the weights as they are in the file.

On a processor with AMX llama.cpp repacks weights of 8 and 4 bits, and then crashes on small matrices
(llama-cpp-python 0.3.36, a model of 64 features). A reference need not be fast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock


def open_llama(path: Path, **options: Any) -> Any:
    """Open a file as `llama_cpp.Llama`, without repacked weights."""
    import llama_cpp
    from llama_cpp import llama_cpp as library

    defaults = library.llama_model_default_params

    def plain() -> Any:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    with mock.patch.object(library, "llama_model_default_params", plain):
        return llama_cpp.Llama(str(path), verbose=False, **options)
