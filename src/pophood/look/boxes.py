"""The steps from token ids to probabilities as boxes, each with its shapes and parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pophood.config import ModelConfig, tensor_shapes
from pophood.look.math.model_parts import shape_text

Stack = Literal["embedding", "attention", "feed-forward", "output"]
ACTIVATIONS = {"gelu_tanh": "GELU (tanh form)", "gelu": "GELU", "silu": "SiLU"}


@dataclass(frozen=True, slots=True)
class Box:
    """One step of the forward pass. Matrices are written inputs x outputs, as in X W."""

    stack: Stack
    title: str
    weights: str  # "768 x 3072, bias 3072"; a description for a step without parameters
    output: str  # its output's shape, "(T, 3072)"
    parameters: int


def boxes_of(config: ModelConfig) -> tuple[Box, ...]:
    """Return the steps in order: embedding, one block (attention, feed-forward), output.

    Example: `sum(box.parameters for box in boxes_of(config))` counts one block of the model, not all.
    """
    return (*_embedding(config), *_attention(config), *_feed_forward(config), *_output(config))


def block_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of one block: 7,087,872 in GPT-2 small."""
    return _count(config, "blocks.0.")


def _embedding(config: ModelConfig) -> list[Box]:
    stream = f"(T, {config.n_embd})"
    shape = shape_text((config.vocab_size, config.n_embd))
    token = Box("embedding", "token embedding", f"row of {shape}", stream, _count(config, "embed.token"))
    if config.rope is not None:
        return [token]
    rows = f"+ row of {shape_text((config.n_positions, config.n_embd))}"
    return [token, Box("embedding", "position embedding", rows, stream, _count(config, "embed.position"))]


def _attention(config: ModelConfig) -> list[Box]:
    joined = config.n_head * config.head_dim
    heads = f"{config.n_head} heads x {config.head_dim}, "
    heads += "masked" if config.n_kv_head == config.n_head else f"k and v {config.n_kv_head}"
    extra = []
    if config.qk_norm:
        norms = _count(config, "blocks.0.attn.q_norm") + _count(config, "blocks.0.attn.k_norm")
        gains = f"gain {config.head_dim} each"
        extra.append(Box("attention", "RMS norms of q, k", gains, "shapes stay", norms))
    if config.rope is not None:
        extra.append(Box("attention", "rotary positions", "q and k are rotated", "shapes stay", 0))
    side_by_side = f"{config.n_head} x {config.head_dim} = {joined}"
    return [
        _norm(config, "attention", "blocks.0.ln_1"),
        _matrix(config, "attention", "query", "attn.q"),
        _matrix(config, "attention", "key", "attn.k"),
        _matrix(config, "attention", "value", "attn.v"),
        *extra,
        Box("attention", "scores, softmax", heads, f"({config.n_head}, T, T)", 0),
        Box("attention", "heads joined", side_by_side, f"(T, {joined})", 0),
        _matrix(config, "attention", "projection back", "attn.out"),
    ]


def _feed_forward(config: ModelConfig) -> list[Box]:
    activation = ACTIVATIONS[config.activation] + ("(gate) x up" if config.gated_mlp else "")
    return [
        _norm(config, "feed-forward", "blocks.0.ln_2"),
        *([_matrix(config, "feed-forward", "gate", "mlp.gate")] if config.gated_mlp else []),
        _matrix(config, "feed-forward", "up", "mlp.up"),
        Box("feed-forward", "activation", activation, f"(T, {config.n_inner})", 0),
        _matrix(config, "feed-forward", "down", "mlp.down"),
    ]


def _output(config: ModelConfig) -> list[Box]:
    matrix = f"{config.n_embd} x {config.vocab_size}"
    logits = f"(T, {config.vocab_size})"
    tied = f"{matrix}, tied" if config.tied_output else matrix
    return [
        _norm(config, "output", "final_norm"),
        Box("output", "logits", tied, logits, _count(config, "output.")),
        Box("output", "probabilities", "softmax of each row", logits, 0),
    ]


def _norm(config: ModelConfig, stack: Stack, tensor: str) -> Box:
    size, stream = config.n_embd, f"(T, {config.n_embd})"
    kind = "RMS norm" if config.norm == "rms" else "layer norm"
    weights = f"gain {size}" if config.norm == "rms" else f"gain {size}, bias {size}"
    title = f"final {kind}" if stack == "output" else kind
    return Box(stack, title, weights, stream, _count(config, tensor))


def _matrix(config: ModelConfig, stack: Stack, title: str, name: str) -> Box:
    tensor, shapes = f"blocks.0.{name}", tensor_shapes(config)
    outputs, inputs = shapes[f"{tensor}.weight"]
    bias = f", bias {outputs}" if f"{tensor}.bias" in shapes else ""
    return Box(stack, title, f"{inputs} x {outputs}{bias}", f"(T, {outputs})", _count(config, f"{tensor}."))


def _count(config: ModelConfig, prefix: str) -> int:
    return sum(math.prod(shape) for name, shape in tensor_shapes(config).items() if name.startswith(prefix))
