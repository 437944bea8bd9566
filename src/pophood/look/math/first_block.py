"""Attention of block 0 in NumPy and float64, with or without positions (position vectors or RoPE).

A window is not computed here: a text must fit into it.

Tests compare it with the engine, which cannot leave positions out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.errors import Unsupported
from pophood.look.math.settle import settled
from pophood.model.bundle import Weights

Floats = NDArray[np.float64]


def rows_before(weights: Weights, config: ModelConfig, ids: tuple[int, ...], positions: bool) -> Floats:
    """Return the input of block 0, [T, C]: token rows, plus position rows if wanted and if there are any."""
    rows: Floats = weights.rows("embed.token", ids).astype(np.float64) * config.embedding_scale
    if positions and config.rope is None:
        rows = rows + weights["embed.position"][: len(ids)]
    return rows


def queries_and_keys(
    weights: Weights, config: ModelConfig, rows: Floats, positions: bool, context: int = 0
) -> tuple[Floats, Floats]:
    """Return queries [T, H, D] and keys [T, K, D] of block 0, with RoPE applied if wanted and used.

    `context` is the window that the model was opened with (`Rope.frequencies`).
    """
    normed = _norm(weights, config, rows, "blocks.0.ln_1")
    rope = config.block_attention[0].rope if positions else None

    def heads(name: str, count: int) -> Floats:
        vectors = _linear(weights, f"blocks.0.attn.{name}", normed)
        gain = weights[f"blocks.0.attn.{name}_norm.weight"] if config.qk_norm else None
        if gain is not None and config.qk_norm == "all":
            vectors = _rms(vectors, config.norm_eps) * gain
        vectors = vectors.reshape(len(rows), count, config.head_dim)
        if gain is not None and config.qk_norm == "head":
            vectors = _rms(vectors, config.norm_eps) * gain
        if rope is None:
            return vectors
        frequencies = rope.frequencies(config.head_dim, context).astype(np.float64)
        return rotate(vectors, np.arange(len(rows)), frequencies, rope.magnitude)

    return heads("q", config.n_head), heads("k", config.n_kv_head)


def last_attention(
    weights: Weights, config: ModelConfig, ids: tuple[int, ...], positions: bool, context: int = 0
) -> tuple[Floats, Floats]:
    """Return block 0's attention at the last token: weights on every token [H, T], and the output [C].

    Raises Unsupported for a text that is longer than the block's window.
    """
    window = config.block_attention[0].window
    if window is not None and window < len(ids):
        raise Unsupported(f"the text has {len(ids)} tokens, and block 0 sees {window}: shorten the text")
    rows = rows_before(weights, config, ids, positions)
    q, k = queries_and_keys(weights, config, rows, positions, context)
    normed = _norm(weights, config, rows, "blocks.0.ln_1")
    v = _linear(weights, "blocks.0.attn.v", normed).reshape(k.shape)
    shared = config.n_head // config.n_kv_head  # query heads per key head
    k, v = np.repeat(k, shared, axis=1), np.repeat(v, shared, axis=1)
    scores = np.einsum("hd,thd->ht", q[-1], k) * score_scale(config)
    if config.score_cap is not None:
        scores = config.score_cap * np.tanh(scores / config.score_cap)
    pattern = np.exp(scores - scores.max(axis=1, keepdims=True))
    pattern /= pattern.sum(axis=1, keepdims=True)
    z = np.einsum("ht,thd->hd", pattern, v)
    return pattern, settled(weights, config, 0, "attn", _linear(weights, "blocks.0.attn.out", z.reshape(-1)))


def score_scale(config: ModelConfig) -> float:
    """Return the factor of scores: 1 / sqrt(D), unless the model has its own."""
    return float(config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale)


def rotate(
    vectors: Floats, positions: NDArray[np.int64], frequencies: Floats, magnitude: float = 1.0
) -> Floats:
    """Apply RoPE: rotate pair (i, i + R/2) of [T, heads, D] by position * frequency_i (Su et al. 2021).

    R is twice the number of frequencies; the features after the first R stay as they are.
    """
    angles, half = positions[:, None] * frequencies, len(frequencies)  # angles: [T, R/2]
    cos, sin = (part(angles)[:, None, :] * magnitude for part in (np.cos, np.sin))
    first, second, rest = vectors[..., :half], vectors[..., half : 2 * half], vectors[..., 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


def _norm(weights: Weights, config: ModelConfig, rows: Floats, name: str) -> Floats:
    if config.norm_places == "after":
        return rows
    if config.norm == "rms":
        return _rms(rows, config.norm_eps) * weights[f"{name}.weight"]
    centred = rows - rows.mean(axis=-1, keepdims=True)
    return _rms(centred, config.norm_eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _rms(rows: Floats, eps: float) -> Floats:
    scaled: Floats = rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + eps)
    return scaled


def _linear(weights: Weights, name: str, rows: Floats) -> Floats:
    result: Floats = rows @ weights[f"{name}.weight"].T.astype(np.float64)
    bias = weights.get(f"{name}.bias")
    return result if bias is None else result + bias
