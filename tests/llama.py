"""llama.cpp as an oracle, with the weights as they are in the file.

On a processor with AMX llama.cpp repacks weights of 8 and 4 bits, and then crashes on small matrices
(llama-cpp-python 0.3.36, a model of 64 features). A reference need not be fast.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray


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


@cache
def _ggml() -> ctypes.CDLL:
    import llama_cpp

    library = ctypes.CDLL(str(next((Path(llama_cpp.__file__).parent / "lib").glob("*ggml-base.*"))))
    quantize = library.ggml_quantize_chunk
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    quantize.restype = ctypes.c_size_t
    return library


def ggml_quantize(values: NDArray[np.float32], kind: str) -> NDArray[np.uint8]:
    """Quantise rows [n, k] with ggml's own code, which knows the K and IQ types too: bytes [n, of a row]."""
    import gguf

    code = gguf.GGMLQuantizationType[kind]
    rows, width = values.shape
    out = np.zeros(gguf.quant_shape_to_byte_shape(values.shape, code), np.uint8)
    source = np.ascontiguousarray(values, np.float32)
    written = _ggml().ggml_quantize_chunk(
        int(code), source.ctypes.data, out.ctypes.data, 0, rows, width, None
    )
    assert written == out.nbytes
    return out
