"""Attention of block 0 in NumPy and float64, with or without positions (position vectors or RoPE).

Tests compare it with the engine, which cannot leave positions out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.errors import Unsupported
from pophood.model.bundle import Weights

Floats = NDArray[np.float64]


def rows_before(weights: Weights, config: ModelConfig, ids: tuple[int, ...], positions: bool) -> Floats:
    """Return the input of block 0, [T, C]: token rows, plus position rows if wanted and if there are any."""
    rows: Floats = weights["embed.token"][list(ids)].astype(np.float64)
    if positions and config.rope is None:
        rows = rows + weights["embed.position"][: len(ids)]
    return rows


def queries_and_keys(
    weights: Weights, config: ModelConfig, rows: Floats, positions: bool
) -> tuple[Floats, Floats]:
    """Return queries [T, H, D] and keys [T, K, D] of block 0, with RoPE applied if wanted and used."""
    normed = _norm(weights, config, rows, "blocks.0.ln_1")
    q = _linear(weights, "blocks.0.attn.q", normed).reshape(len(rows), config.n_head, config.head_dim)
    k = _linear(weights, "blocks.0.attn.k", normed).reshape(len(rows), config.n_kv_head, config.head_dim)
    if config.qk_norm:
        q = _rms(q, config.norm_eps) * weights["blocks.0.attn.q_norm.weight"]
        k = _rms(k, config.norm_eps) * weights["blocks.0.attn.k_norm.weight"]
    if config.rope is not None and positions:
        frequencies = config.rope.frequencies(config.head_dim).astype(np.float64)
        at = np.arange(len(rows))
        q, k = rotate(q, at, frequencies), rotate(k, at, frequencies)
    return q, k


def last_attention(
    weights: Weights, config: ModelConfig, ids: tuple[int, ...], positions: bool
) -> tuple[Floats, Floats]:
    """Return block 0's attention at the last token: weights on every token [H, T], and the output [C]."""
    window = config.block_attention[0].window
    if window is not None and window < len(ids):
        raise Unsupported(f"the text has {len(ids)} tokens, and block 0 sees {window}: shorten the text")
    rows = rows_before(weights, config, ids, positions)
    q, k = queries_and_keys(weights, config, rows, positions)
    normed = _norm(weights, config, rows, "blocks.0.ln_1")
    v = _linear(weights, "blocks.0.attn.v", normed).reshape(k.shape)
    shared = config.n_head // config.n_kv_head  # query heads per key head
    k, v = np.repeat(k, shared, axis=1), np.repeat(v, shared, axis=1)
    scores = np.einsum("hd,thd->ht", q[-1], k) / np.sqrt(config.head_dim)
    pattern = np.exp(scores - scores.max(axis=1, keepdims=True))
    pattern /= pattern.sum(axis=1, keepdims=True)
    z = np.einsum("ht,thd->hd", pattern, v)
    return pattern, _linear(weights, "blocks.0.attn.out", z.reshape(-1))


def rotate(vectors: Floats, positions: NDArray[np.int64], frequencies: Floats) -> Floats:
    """Apply RoPE: rotate pair (i, i + D/2) of [T, heads, D] by position * frequency_i (Su et al. 2021)."""
    angles = positions[:, None] * frequencies  # [T, D/2]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    first, second = np.split(vectors, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _norm(weights: Weights, config: ModelConfig, rows: Floats, name: str) -> Floats:
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
