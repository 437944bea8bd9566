"""Random values for models of every family, small unless the caller says otherwise, one tensor at a time.

Every parameter is random: biases N(0, 0.1), norm gains N(1, 0.3), and matrices scaled so that greedy text
varies. So a dropped bias or an ignored gain changes the results.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig, Rope, tensor_shapes
from tests.llama import ggml_quantize

Floats = NDArray[np.float32]
FAMILIES = ("gpt2", "llama", "llama-untied", "qwen2", "qwen3")

_GPT2 = ModelConfig(
    architecture="gpt2",
    n_layer=2,
    n_head=4,
    n_kv_head=4,
    n_embd=64,
    head_dim=16,
    n_inner=256,
    vocab_size=50_257,
    n_positions=128,
    norm="layer",
    norm_eps=1e-5,
    activation="gelu_tanh",
    gated_mlp=False,
    rope=None,
    qkv_bias=True,
    attn_out_bias=True,
    mlp_bias=True,
    qk_norm=None,
    tied_output=True,
)
_LLAMA = ModelConfig(
    architecture="llama",
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=64,
    head_dim=16,
    n_inner=96,
    vocab_size=512,
    n_positions=256,
    norm="rms",
    norm_eps=1e-5,
    activation="silu",
    gated_mlp=True,
    rope=Rope(500_000.0, "llama3", 8.0, 1.0, 4.0, 64),
    qkv_bias=False,
    attn_out_bias=False,
    mlp_bias=False,
    qk_norm=None,
    tied_output=True,
)
CONFIGS = {
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "llama-untied": replace(_LLAMA, rope=Rope(10_000.0), n_layer=3, n_kv_head=4, tied_output=False),
    "qwen2": replace(
        _LLAMA, architecture="qwen2", rope=Rope(1e6), norm_eps=1e-6, qkv_bias=True, tied_output=False
    ),
    "qwen3": replace(
        _LLAMA, architecture="qwen3", rope=Rope(1e6), norm_eps=1e-6, head_dim=32, qk_norm="head"
    ),
}
GPT2_SIZES = {  # the four published shapes: blocks, heads, features, parameters
    "gpt2": (12, 12, 768, 124_439_808),
    "gpt2-medium": (24, 16, 1024, 354_823_168),
    "gpt2-large": (36, 20, 1280, 774_030_080),
    "gpt2-xl": (48, 25, 1600, 1_557_611_200),
}


def gpt2_config(size: str) -> ModelConfig:
    """Return the configuration of a published GPT-2: `gpt2_config("gpt2-xl").n_layer == 48`."""
    n_layer, n_head, n_embd, _ = GPT2_SIZES[size]
    return replace(
        _GPT2,
        n_layer=n_layer,
        n_head=n_head,
        n_kv_head=n_head,
        n_embd=n_embd,
        head_dim=n_embd // n_head,
        n_inner=4 * n_embd,
        n_positions=1024,
    )


def tiny_config(family: str, **overrides: Any) -> ModelConfig:
    """Return the configuration of a family or of a published GPT-2 size, with some fields replaced."""
    base = CONFIGS.get(family) or gpt2_config(family)
    return replace(base, **overrides)


@dataclass(frozen=True, slots=True)
class Values:
    """The tensors of one random model by canonical name, computed on each call: `Values(config, 7)(name)`.

    They are rounded to `dtype` ("F32", "F16", "BF16"); if `quantised` names a GGUF type, the
    matrices are rounded to that type's values instead.
    """

    config: ModelConfig
    seed: int = 0
    dtype: str = "F32"
    quantised: str | None = None

    def __call__(self, name: str) -> Floats:
        """Return the float32 values of one tensor."""
        shape = tensor_shapes(self.config)[name]
        values = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).standard_normal(
            shape, np.float32
        )
        values *= np.float32(_deviation(name, shape))
        if name.endswith(("ln_1.weight", "ln_2.weight", "norm.weight")):
            values += np.float32(1.0)
        if self.quantised is None or len(shape) == 1:
            return widened(narrowed(values, self.dtype))
        return _dequantised(quantised(values, self.quantised), self.quantised)

    def items(self) -> Iterator[tuple[str, Floats]]:
        """Yield all tensors in the order of use."""
        return ((name, self(name)) for name in tensor_shapes(self.config))


def _deviation(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return 0.1 if name.endswith("bias") else 0.3
    if name.startswith(("embed", "output")):
        return 0.1
    # Large enough for sharp attention, and for blocks that outweigh the embedding: otherwise greedy text
    # repeats.
    return (1.0 if name.endswith("attn.v.weight") else 2.0) / math.sqrt(shape[1])


def narrowed(values: Floats, dtype: str) -> NDArray[Any]:
    """Convert float32 to the type of a file, rounded to nearest, ties to even; BF16 as uint16 bits."""
    if dtype == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype], copy=False)


def widened(values: NDArray[Any]) -> Floats:
    """Convert back to float32, the inverse of `narrowed`."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def quantised(values: Floats, kind: str) -> NDArray[np.uint8]:
    """Quantise rows as ggml does; its Python package knows the simple types, its library the others too."""
    import gguf

    if kind.endswith("_K") or kind.startswith("IQ"):
        return ggml_quantize(values, kind)
    blocks: NDArray[np.uint8] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    return blocks


def _dequantised(blocks: NDArray[np.uint8], kind: str) -> Floats:
    import gguf

    values: Floats = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    return values


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file: `make` computes its values when they are written."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Floats]
    canonical: bool = True  # False for a tensor that must be ignored


def style_of(config: ModelConfig) -> str:
    """Return the tokenizer's style for `tests.tiny_vocabulary`."""
    return "qwen" if config.architecture.startswith("qwen") else config.architecture
