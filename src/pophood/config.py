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
    """Rotary position embedding, RoPE (Su et al. 2021): turns pair (i, i + R/2) by position * frequency_i.

    R is the part of a head that is rotated, its first `share`. `scaling` "linear" divides every frequency by
    `factor`; "llama3" divides the low ones and blends those between (Llama 3.1); "yarn" does the same by
    turns within `original_context` (Peng et al. 2023). "dynamic" raises the base for a context window longer
    than `original_context`, and changes nothing else (NTK-aware scaling). `divisors` [R/2] replaces
    `scaling`: GGUF's `rope_freqs.weight` is the blend of "llama3" as numbers. "longrope" has `long_divisors`
    too, for a context window longer than `original_context`. Cosines and sines are multiplied by `magnitude`.
    """

    theta: float = 10_000.0
    scaling: Literal["none", "linear", "llama3", "dynamic", "yarn", "longrope"] = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8_192
    divisors: tuple[float, ...] | None = None
    long_divisors: tuple[float, ...] | None = None
    share: float = 1.0
    magnitude: float = 1.0
    beta_fast: float = 32.0  # "yarn": pairs that turn more often in `original_context` are not stretched
    beta_slow: float = 1.0  # "yarn": pairs that turn less often are stretched by the whole factor
    truncate: bool = True  # "yarn": the two bounds are rounded to whole pairs

    def rotated(self, head_dim: int) -> int:
        """Return R, the number of features of a head that are rotated."""
        return int(head_dim * self.share)

    def frequencies(self, head_dim: int, context: int = 0) -> NDArray[np.float32]:
        """Return the angle per position of each pair in radians, [R/2], computed in f32 as transformers does.

        `context` is the window that the model is opened with, which decides between the two lists of
        divisors of "longrope", and the base of "dynamic".

        >>> Rope(theta=10_000.0).frequencies(4).tolist()
        [1.0, 0.009999999776482582]
        """
        rotated = self.rotated(head_dim)
        exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
        # The power in f64, rounded once: the C library's f32 power differs between machines.
        theta = np.float64(self.theta)
        if self.scaling == "dynamic" and context > self.original_context:
            stretch = self.factor * context / self.original_context - (self.factor - 1)
            theta *= stretch ** (rotated / (rotated - 2))
        powers = np.power(theta, exponents.astype(np.float64)).astype(np.float32)
        base = (np.float32(1.0) / powers).astype(np.float32)
        divisors = self.divisors
        if self.long_divisors is not None and context > self.original_context:
            divisors = self.long_divisors
        if divisors is not None:
            return (base / np.asarray(divisors, dtype=np.float32)).astype(np.float32)
        if self.scaling == "linear":
            return (base / np.float32(self.factor)).astype(np.float32)
        if self.scaling == "llama3":
            return (base / self.llama3_divisors(base)).astype(np.float32)
        if self.scaling == "yarn":
            kept = self._yarn_kept(rotated)
            return (base / np.float32(self.factor) * (1 - kept) + base * kept).astype(np.float32)
        return base

    def chosen(self, context: int) -> str:
        """Return in words which frequencies a context window chose; "" for those of a short window."""
        if context <= self.original_context:
            return ""
        dynamic = f"dynamic for {context}" if self.scaling == "dynamic" else ""
        return "long" if self.long_divisors is not None else dynamic

    def _yarn_kept(self, rotated: int) -> NDArray[np.float32]:
        """Return the share of each pair's own frequency that "yarn" keeps, [R/2]."""

        def pair_that_turns(times: float) -> float:
            turns = self.original_context / (times * 2 * math.pi)
            return rotated * math.log(turns) / (2 * math.log(self.theta))

        low, high = pair_that_turns(self.beta_fast), pair_that_turns(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotated - 1)
        high += 0.001 if low == high else 0.0
        ramp = (np.arange(rotated // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
        kept: NDArray[np.float32] = (1 - np.clip(ramp, 0, 1)).astype(np.float32)
        return kept

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

    `positions` is the number that the files name, and `why` the reason in words, to follow "since".
    """

    positions: int
    why: str


@dataclass(frozen=True, slots=True)
class BlockAttention:
    """The window and the rotation of one block, in models whose blocks differ in that.

    With a `window`, a position sees itself and the window - 1 positions before it. `rope` is None in a block
    that does not rotate (NoPE).
    """

    window: int | None
    rope: Rope | None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The architecture of one transformer, choice by choice.

    `architecture` ("gpt2", "llama", "qwen3"...) is shown to people; no code branches on it.
    """

    architecture: str
    n_layer: int  # L
    n_head: int  # H
    n_kv_head: int  # K; equal to H without grouped-query attention
    n_embd: int  # C
    head_dim: int  # D
    n_inner: int  # F
    vocab_size: int  # V, rows of the token embedding
    n_positions: int  # the context window: positions that can be computed, unless `most_positions` are more
    norm: Literal["layer", "rms"]
    norm_eps: float
    activation: Literal["gelu_tanh", "gelu", "silu"]
    gated_mlp: bool  # down(activation(gate(x)) * up(x)) instead of down(activation(up(x)))
    rope: Rope | None  # of blocks that see everything; None: learned vectors, added to the token vectors
    qkv_bias: bool
    attn_out_bias: bool
    mlp_bias: bool
    qk_norm: (
        Literal["head", "all"] | None
    )  # RMS norm of queries and keys before rotation: per head, or of all
    tied_output: bool  # the output matrix is the token embedding again
    norm_places: Literal["before", "after", "both"] = "before"  # "after": of what is added to the stream
    parallel: bool = False  # attention and feed-forward read the same stream
    attention_scale: float | None = None  # of scores; None: 1 / sqrt(D)
    score_cap: float | None = None  # scores become cap * tanh(score / cap)
    logit_cap: float | None = None
    embedding_scale: float = 1.0  # of token vectors
    residual_scale: float = 1.0  # of what attention and feed-forward add to the stream
    logit_divisor: float = 1.0
    attention: tuple[BlockAttention, ...] = ()  # per block, if blocks differ or have windows
    limit: Limit | None = None  # why n_positions is less than the number that the files name

    @property
    def block_attention(self) -> tuple[BlockAttention, ...]:
        """The window and the rotation of every block."""
        return self.attention or (BlockAttention(None, self.rope),) * self.n_layer

    def rotations(self, longest: int | None = None) -> list[tuple[int | None, bytes, bytes, float]]:
        """Return per block what two files must agree on: the window, and how heads are rotated, in bits.

        Heads are rotated by two sets of frequencies, in a short context window and in the longest one.
        """
        contexts = (0, longest or self.most_positions)
        rotated = []
        for block in self.block_attention:
            rope = block.rope or Rope(share=0.0)
            short, long = (rope.frequencies(self.head_dim, context).tobytes() for context in contexts)
            rotated.append((block.window, short, long, float(np.float32(rope.magnitude))))
        return rotated

    @property
    def most_positions(self) -> int:
        """The longest context window that a model can be opened with, which "dynamic" scaling extends."""
        rope = self.rope
        if self.limit is not None or rope is None or rope.scaling != "dynamic":
            return self.n_positions
        return max(self.n_positions, int(rope.factor * rope.original_context))

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
    before, after = config.norm_places != "after", config.norm_places != "before"
    for i in range(config.n_layer):
        block = f"blocks.{i}"
        if before:
            add(f"{block}.ln_1", (c,), layer_norm)
        add(f"{block}.attn.q", (q, c), config.qkv_bias)
        add(f"{block}.attn.k", (kv, c), config.qkv_bias)
        add(f"{block}.attn.v", (kv, c), config.qkv_bias)
        if config.qk_norm:
            add(f"{block}.attn.q_norm", (q if config.qk_norm == "all" else d,), False)
            add(f"{block}.attn.k_norm", (kv if config.qk_norm == "all" else d,), False)
        add(f"{block}.attn.out", (c, q), config.attn_out_bias)
        if after:
            add(f"{block}.ln_1_post", (c,), layer_norm)
        if before:
            add(f"{block}.ln_2", (c,), layer_norm)
        if config.gated_mlp:
            add(f"{block}.mlp.gate", (f, c), config.mlp_bias)
        add(f"{block}.mlp.up", (f, c), config.mlp_bias)
        add(f"{block}.mlp.down", (c, f), config.mlp_bias)
        if after:
            add(f"{block}.ln_2_post", (c,), layer_norm)
    add("final_norm", (c,), layer_norm)
    if not config.tied_output:
        shapes["output.weight"] = (config.vocab_size, c)
    return shapes
