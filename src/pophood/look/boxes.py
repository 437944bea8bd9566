"""The steps from token ids to probabilities as boxes, each with its shapes and parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pophood.config import ModelConfig, tensor_shapes
from pophood.look.math.model_parts import shape_text
from pophood.phrases import later, phrase

Stack = Literal["embedding", "attention", "feed-forward", "output"]
ACTIVATIONS = {"gelu_tanh": later("GELU (tanh form)"), "gelu": "GELU", "silu": "SiLU"}


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
    token = Box(
        "embedding",
        phrase("token embedding"),
        phrase("row of {shape}", shape=shape),
        stream,
        _count(config, "embed.token"),
    )
    first = [token, *_multiplier("embedding", config.embedding_scale, stream)]
    if config.rope is not None:
        return first
    rows = phrase("+ row of {shape}", shape=shape_text((config.n_positions, config.n_embd)))
    return [
        *first,
        Box("embedding", phrase("position embedding"), rows, stream, _count(config, "embed.position")),
    ]


def _attention(config: ModelConfig) -> list[Box]:
    joined = config.n_head * config.head_dim
    heads = phrase("{heads} heads x {size}, ", heads=config.n_head, size=config.head_dim)
    heads += (
        phrase("masked")
        if config.n_kv_head == config.n_head
        else phrase("k and v {shared}", shared=config.n_kv_head)
    )
    extra = []
    if config.qk_norm:
        norms = _count(config, "blocks.0.attn.q_norm") + _count(config, "blocks.0.attn.k_norm")
        whole = phrase(
            "gains {joined} and {shared}", joined=joined, shared=config.n_kv_head * config.head_dim
        )
        gains = phrase("gain {size} each", size=config.head_dim) if config.qk_norm == "head" else whole
        extra.append(Box("attention", phrase("RMS norms of q, k"), gains, phrase("shapes stay"), norms))
    if config.rope is not None:
        rotated = config.rope.rotated(config.head_dim)
        part = (
            ""
            if rotated == config.head_dim
            else phrase(" ({rotated} of {size})", rotated=rotated, size=config.head_dim)
        )
        extra.append(
            Box(
                "attention",
                phrase("rotary positions"),
                phrase("q and k are rotated{part}", part=part),
                phrase("shapes stay"),
                0,
            )
        )
    square = f"({config.n_head}, T, T)"
    weigh = [Box("attention", phrase("scores, softmax"), heads, square, 0)]
    if config.score_cap is not None:
        weigh = [
            Box("attention", phrase("scores"), heads, square, 0),
            Box("attention", phrase("cap"), _capped(config.score_cap), square, 0),
            Box("attention", "softmax", phrase("of each row"), square, 0),
        ]
    side_by_side = f"{config.n_head} x {config.head_dim} = {joined}"
    return [
        *_norm(config, "attention", "blocks.0.ln_1"),
        _matrix(config, "attention", phrase("query"), "attn.q"),
        _matrix(config, "attention", phrase("key"), "attn.k"),
        _matrix(config, "attention", phrase("value"), "attn.v"),
        *extra,
        *weigh,
        Box("attention", phrase("heads joined"), side_by_side, f"(T, {joined})", 0),
        _matrix(config, "attention", phrase("projection back"), "attn.out"),
        *_norm(config, "attention", "blocks.0.ln_1_post"),
        *_multiplier("attention", config.residual_scale, f"(T, {config.n_embd})"),
    ]


def _feed_forward(config: ModelConfig) -> list[Box]:
    activation = phrase(ACTIVATIONS[config.activation]) + (phrase("(gate) x up") if config.gated_mlp else "")
    return [
        *_norm(config, "feed-forward", "blocks.0.ln_2"),
        *([_matrix(config, "feed-forward", phrase("gate"), "mlp.gate")] if config.gated_mlp else []),
        _matrix(config, "feed-forward", phrase("up"), "mlp.up"),
        Box("feed-forward", phrase("activation"), activation, f"(T, {config.n_inner})", 0),
        _matrix(config, "feed-forward", phrase("down"), "mlp.down"),
        *_norm(config, "feed-forward", "blocks.0.ln_2_post"),
        *_multiplier("feed-forward", config.residual_scale, f"(T, {config.n_embd})"),
    ]


def _output(config: ModelConfig) -> list[Box]:
    matrix = f"{config.n_embd} x {config.vocab_size}"
    logits = f"(T, {config.vocab_size})"
    tied = phrase("{matrix}, tied", matrix=matrix) if config.tied_output else matrix
    finish = []
    if config.logit_divisor != 1:
        finish.append(Box("output", phrase("divisor"), f"/ {config.logit_divisor:g}", logits, 0))
    if config.logit_cap is not None:
        finish.append(Box("output", phrase("cap"), _capped(config.logit_cap), logits, 0))
    return [
        *_norm(config, "output", "final_norm"),
        Box("output", "logits", tied, logits, _count(config, "output.")),
        *finish,
        Box("output", phrase("probabilities"), phrase("softmax of each row"), logits, 0),
    ]


def _norm(config: ModelConfig, stack: Stack, tensor: str) -> list[Box]:
    """Return the norm with this name, if the model has it."""
    if f"{tensor}.weight" not in tensor_shapes(config):
        return []
    size, stream = config.n_embd, f"(T, {config.n_embd})"
    kind = phrase("RMS norm") if config.norm == "rms" else phrase("layer norm")
    weights = (
        phrase("gain {size}", size=size)
        if config.norm == "rms"
        else phrase("gain {size}, bias {size}", size=size)
    )
    title = phrase("final {kind}", kind=kind) if stack == "output" else kind
    return [Box(stack, title, weights, stream, _count(config, f"{tensor}."))]


def _multiplier(stack: Stack, factor: float, output: str) -> list[Box]:
    return [] if factor == 1 else [Box(stack, phrase("multiplier"), f"x {factor:.6g}", output, 0)]


def _capped(cap: float) -> str:
    return f"{cap:g} tanh(x / {cap:g})"


def _matrix(config: ModelConfig, stack: Stack, title: str, name: str) -> Box:
    tensor, shapes = f"blocks.0.{name}", tensor_shapes(config)
    outputs, inputs = shapes[f"{tensor}.weight"]
    bias = phrase(", bias {outputs}", outputs=outputs) if f"{tensor}.bias" in shapes else ""
    return Box(stack, title, f"{inputs} x {outputs}{bias}", f"(T, {outputs})", _count(config, f"{tensor}."))


def _count(config: ModelConfig, prefix: str) -> int:
    return sum(math.prod(shape) for name, shape in tensor_shapes(config).items() if name.startswith(prefix))
