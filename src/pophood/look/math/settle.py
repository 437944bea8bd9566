"""The last steps of a sublayer, before its result is added to the stream: a norm, a factor (small: one sum).

GPT-2, Llama and Qwen have neither; Gemma and OLMo 2 have norms there, Granite a multiplier.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.model.bundle import Weights
from pophood.phrases import phrase

Floats = NDArray[np.float64]


def settled(weights: Weights, config: ModelConfig, block: int, part: str, rows: Floats) -> Floats:
    """Return what is added to the stream, [..., C], for rows from `part`, "attn" or "mlp"."""
    if config.norm_places != "before":
        gain, divisor = slopes(weights, config, block, part, rows)
        rows = rows * gain / divisor[..., None]
    return rows * config.residual_scale


def slopes(
    weights: Weights, config: ModelConfig, block: int, part: str, rows: Floats
) -> tuple[Floats, Floats]:
    """Return gain [C] and divisor [...] of the norm after a sublayer; 1 where the model has none."""
    if config.norm_places == "before":
        return np.ones(rows.shape[-1]), np.ones(rows.shape[:-1])
    gain = weights[post_norm(block, part) + ".weight"].astype(np.float64)
    return gain, np.sqrt(np.square(rows).mean(axis=-1) + config.norm_eps)


def post_norm(block: int, part: str) -> str:
    """Return the name of the norm after a sublayer.

    >>> post_norm(3, "mlp")
    'blocks.3.ln_2_post'
    """
    return f"blocks.{block}.{'ln_1_post' if part == 'attn' else 'ln_2_post'}"


def settling(config: ModelConfig) -> str:
    """Return the steps in words, to follow what was computed; "" where there are none."""
    after = phrase(", then a norm") if config.norm_places != "before" else ""
    return after + (
        phrase(", times {residual_scale:g}", residual_scale=config.residual_scale)
        if config.residual_scale != 1
        else ""
    )
