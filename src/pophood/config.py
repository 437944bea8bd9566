"""ModelConfig: a model's architecture as frozen data: no weights, no file formats, no names to branch on.

Sizes have the same letters in Python and in C++:

    B  sequences in a batch        C  features of the residual stream (n_embd)     V  vocabulary
    T  positions in a sequence     H  query heads      K  key/value heads          L  blocks
    D  features of one head        F  features inside the feed-forward (n_inner)   P  positions with a vector

Every tensor has one canonical name; `tensor_shapes` lists them in the order of the forward pass. Matrices are
[outputs, inputs], whatever layout their file has.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding, RoPE (Su et al. 2021): turns pair (i, i + D/2) by position * frequency_i.

    `scaling` "linear" divides every frequency by `factor`; "llama3" divides the low ones and blends those
    between (Llama 3.1). "dynamic" rescales them only beyond `original_context`, which pophood does not
    compute, so it changes nothing. `divisors` is GGUF's `rope_freqs.weight` [D/2], the blend of "llama3" as
    numbers; if present it replaces `scaling`.
    """

    theta: float = 10_000.0
    scaling: Literal["none", "linear", "llama3", "dynamic"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8_192
    divisors: tuple[float, ...] | None = None

    def frequencies(self, head_dim: int) -> NDArray[np.float32]:
        """Return the angle per position of each pair in radians, [D/2], computed in f32 as transformers does.

        >>> Rope(theta=10_000.0).frequencies(4).tolist()
        [1.0, 0.009999999776482582]
        """
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        # The power in f64, rounded once: the C library's f32 power differs between machines.
        powers = np.power(np.float64(self.theta), exponents.astype(np.float64)).astype(np.float32)
        base = (np.float32(1.0) / powers).astype(np.float32)
        if self.divisors is not None:
            return (base / np.asarray(self.divisors, dtype=np.float32)).astype(np.float32)
        if self.scaling == "linear":
            return (base / np.float32(self.factor)).astype(np.float32)
        if self.scaling == "llama3":
            return (base / self.llama3_divisors(base)).astype(np.float32)
        return base

    def llama3_divisors(self, base: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the divisors of the unscaled frequencies [D/2] for "llama3", GGUF's rope_freqs.weight."""
        # Llama 3.1 stretches wavelengths over original/low by `factor`, keeps those under original/high, and
        # blends those between linearly in the number of turns. These are the numbers that llama.cpp's
        # converter stores as rope_freqs.weight, in its order of arithmetic, so that both kinds of file give
        # the same bits. transformers blends the frequencies instead; the result differs in the last bits.
        wavelength = np.float32(2 * math.pi) / base
        longest = np.float32(self.original_context / self.low_freq_factor)
        shortest = np.float32(self.original_context / self.high_freq_factor)
        turns = np.float32(self.original_context) / wavelength
        span = np.float32(self.high_freq_factor - self.low_freq_factor)
        smooth = (turns - np.float32(self.low_freq_factor)) / span
        smooth = np.clip(smooth, 0, 1)  # 0 and 1 are the wavelengths that are not blended
        factor = np.float32(self.factor)
        between = np.float32(1.0) / ((np.float32(1.0) - smooth) / factor + smooth)
        stretched = np.where(wavelength > longest, factor, between)
        return np.where(wavelength < shortest, np.float32(1.0), stretched).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Limit:
    """The reason why a model runs on fewer positions than its files name.

    `positions` is the number that the files name, `window` the width of sliding attention if that is the
    reason, and `why` the reason in words, to follow "since".
    """

    positions: int
    window: int | None
    why: str


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of one transformer, choice by choice.

    `architecture` ("gpt2", "llama", "qwen2", "qwen3") is shown to people; no code branches on it.
    """

    architecture: str
    n_layer: int  # L
    n_head: int  # H
    n_kv_head: int  # K; equal to H without grouped-query attention
    n_embd: int  # C
    head_dim: int  # D
    n_inner: int  # F
    vocab_size: int  # V, rows of the token embedding
    n_positions: int  # the context window: positions that can be computed
    norm: Literal["layer", "rms"]
    norm_eps: float
    activation: Literal["gelu_tanh", "gelu", "silu"]
    gated_mlp: bool  # down(activation(gate(x)) * up(x)) instead of down(activation(up(x)))
    rope: Rope | None  # None: learned position vectors, added to the token vectors
    qkv_bias: bool
    attn_out_bias: bool
    mlp_bias: bool
    qk_norm: bool  # RMS norm over D of every query and key head, before rotation (Qwen3)
    tied_output: bool  # the output matrix is the token embedding again
    limit: Limit | None = None  # why n_positions is less than the number that the files name

    @property
    def named_positions(self) -> int:
        """The number of positions that the model's files name, which exported files name as well."""
        return self.limit.positions if self.limit else self.n_positions

    def limited_by(self, context: int) -> str:
        """Return the reason why a context is not longer; "" if the user or the files chose its length."""
        return self.limit.why if self.limit and context == self.n_positions else ""

    def check_ids(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return token ids as whole numbers; raise BadInput unless each is a row of the token embedding."""
        try:
            # Python cuts the tuple of a generator to its length, and keeps 2,000 freed ones of each length.
            whole = tuple([operator.index(token) for token in ids])
        except TypeError:
            raise BadInput(
                "the prompt is neither text nor a sequence of token ids: encode it first"
            ) from None
        for token in whole:
            if not 0 <= token < self.vocab_size:
                raise BadInput(
                    f"token id {token} is not in the vocabulary: wanted 0..{self.vocab_size - 1:,}"
                )
        return whole

    @property
    def n_params(self) -> int:
        """The number of parameters, with a tied output matrix counted once."""
        return sum(math.prod(shape) for shape in tensor_shapes(self).values())


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the model by canonical name, in order of use.

    Example: `tensor_shapes(gpt2)["blocks.0.mlp.up.weight"] == (3072, 768)`.
    """
    c, d, f = config.n_embd, config.head_dim, config.n_inner
    q, kv = config.n_head * d, config.n_kv_head * d
    shapes: dict[str, tuple[int, ...]] = {"embed.token": (config.vocab_size, c)}

    def add(name: str, weight: tuple[int, ...], bias: bool) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    layer_norm = config.norm == "layer"
    if config.rope is None:
        shapes["embed.position"] = (config.n_positions, c)
    for i in range(config.n_layer):
        block = f"blocks.{i}"
        add(f"{block}.ln_1", (c,), layer_norm)
        add(f"{block}.attn.q", (q, c), config.qkv_bias)
        add(f"{block}.attn.k", (kv, c), config.qkv_bias)
        add(f"{block}.attn.v", (kv, c), config.qkv_bias)
        if config.qk_norm:
            add(f"{block}.attn.q_norm", (d,), False)
            add(f"{block}.attn.k_norm", (d,), False)
        add(f"{block}.attn.out", (c, q), config.attn_out_bias)
        add(f"{block}.ln_2", (c,), layer_norm)
        if config.gated_mlp:
            add(f"{block}.mlp.gate", (f, c), config.mlp_bias)
        add(f"{block}.mlp.up", (f, c), config.mlp_bias)
        add(f"{block}.mlp.down", (c, f), config.mlp_bias)
    add("final_norm", (c,), layer_norm)
    if not config.tied_output:
        shapes["output.weight"] = (config.vocab_size, c)
    return shapes
