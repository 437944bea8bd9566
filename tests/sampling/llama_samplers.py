"""llama.cpp's samplers, through llama-cpp-python, as functions on a row of logits: an authority for tests."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pophood.sampling.softmax import Floats

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import llama_cpp

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def apply(sampler: Any, logits: Floats, history: Sequence[int] = ()) -> dict[int, float]:
    """Let a sampler accept the history and change a row [V]; return the remaining logits by token."""
    data = np.zeros(len(logits), dtype=TOKEN_DATA)
    data["id"], data["logit"] = np.arange(len(logits)), logits
    pointer = ctypes.cast(data.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
    row = llama_cpp.llama_token_data_array(pointer, len(logits), -1, False)
    try:
        for token in history:
            llama_cpp.llama_sampler_accept(sampler, token)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(row))
        start = (ctypes.addressof(row.data.contents) - data.ctypes.data) // data.itemsize  # XTC moves it
        left = data[start : start + row.size]
        return dict(zip(left["id"].tolist(), left["logit"].tolist(), strict=True))
    finally:
        llama_cpp.llama_sampler_free(sampler)


def top_k(k: int) -> Any:
    return llama_cpp.llama_sampler_init_top_k(k)


def top_p(p: float) -> Any:
    return llama_cpp.llama_sampler_init_top_p(p, 1)


def min_p(p: float) -> Any:
    return llama_cpp.llama_sampler_init_min_p(p, 1)


def typical(p: float) -> Any:
    return llama_cpp.llama_sampler_init_typical(p, 1)


def temperature(value: float) -> Any:
    return llama_cpp.llama_sampler_init_temp(value)


def xtc(threshold: float) -> Any:
    """Return an XTC sampler that always applies."""
    return llama_cpp.llama_sampler_init_xtc(1.0, threshold, 1, 0)


def penalties(size: int, window: int, repetition: float, frequency: float, presence: float) -> Any:
    return llama_cpp.llama_sampler_init_penalties(size, window, repetition, frequency, presence)


def logit_bias(size: int, bias: Mapping[int, float]) -> Any:
    entries = (llama_cpp.llama_logit_bias * len(bias))()
    for entry, (token, value) in zip(entries, bias.items(), strict=True):
        entry.token, entry.bias = token, value
    return llama_cpp.llama_sampler_init_logit_bias(size, len(bias), entries)


def dry(
    vocabulary: Any, multiplier: float, base: float, allowed: int, window: int, breakers: Sequence[str]
) -> Any:
    strings = (ctypes.c_char_p * len(breakers))(*(breaker.encode() for breaker in breakers))
    return llama_cpp.llama_sampler_init_dry(
        vocabulary, multiplier, base, allowed, window, strings, len(breakers)
    )


def chain(*samplers: Any) -> Any:
    """Return a sampler that applies others in order and frees them."""
    made = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    for sampler in samplers:
        llama_cpp.llama_sampler_chain_add(made, sampler)
    return made


class Vocabulary:
    """The vocabulary of a GGUF file as llama.cpp reads it; `close` frees the model."""

    def __init__(self, path: str) -> None:
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        assert self._model is not None
        self.handle: Any = llama_cpp.llama_model_get_vocab(self._model)

    def close(self) -> None:
        llama_cpp.llama_model_free(self._model)

    def pieces(self) -> list[bytes]:
        """Return the bytes of every token."""
        buffer = ctypes.create_string_buffer(1_024)

        def piece(token: int) -> bytes:
            size = int(llama_cpp.llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, True))
            assert size >= 0
            return bytes(buffer.raw[:size])

        return [piece(token) for token in range(llama_cpp.llama_vocab_n_tokens(self.handle))]

    def encode(self, text: str) -> list[int]:
        """Return token ids; special tokens are not parsed."""
        found = (llama_cpp.llama_token * 256)()
        raw = text.encode()
        count = int(llama_cpp.llama_tokenize(self.handle, raw, len(raw), found, 256, False, False))
        assert count >= 0
        return [int(token) for token in found[:count]]
