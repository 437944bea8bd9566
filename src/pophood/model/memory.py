"""The type in which the engine holds each tensor, and the memory that a model takes, from sizes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput
from pophood.formats.quant import BLOCKS
from pophood.generate.decoder import BLOCK, CHUNK, KV_SLACK, blocks_of
from pophood.model.machine import multiplies_bf16

PRECISIONS = ("auto", "f32", "q8", "q4")
KV_TYPES = ("auto", "f32", "f16", "q8")
# Types that are computed as stored, and those whose decoded values are quantised to Q8_0.
COMPUTED_BLOCKS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL")
WIDENED_BLOCKS = ("Q2_K", "Q3_K", "IQ4_XS")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model needs: weights, activations of one chunk, keys and values per position.

    `windowed_per_position` of those are of layers with attention windows, the widest of `window` positions.
    """

    weights: int
    activations: int
    cache_per_position: int
    context: int
    kv_type: str  # of keys and values: "f32", "f16" or "q8"
    windowed_per_position: int = 0
    window: int = 0

    @property
    def least(self) -> int:
        """Bytes of the weights, the activations and the first block of keys and values."""
        return self.weights + self.activations + self.cache(1)

    @property
    def full(self) -> int:
        """Bytes of the weights, the activations and one sequence that fills the context window."""
        return self.weights + self.activations + self.cache(self.context)

    def cache(self, positions: int) -> int:
        """Return the bytes of the keys and values of one sequence, while a chunk of it is computed.

        Layers with windows keep no more than a window, and what `KvBlocks` says beside it.
        """
        full = self.cache_per_position - self.windowed_per_position
        blocks = blocks_of(positions)
        windowed = min(blocks, blocks_of(self.window - 1 + KV_SLACK + CHUNK))
        return BLOCK * (blocks * full + windowed * self.windowed_per_position)


def computed_type(name: str, shape: tuple[int, ...], stored: str, precision: str) -> str:
    """Return the type in which the engine holds a tensor: "F32", "F16", "BF16" or one of COMPUTED_BLOCKS.

    Vectors are F32. A matrix of F16 or BF16 keeps its type, unless `precision` is "q8", which makes every
    matrix that is not stored in blocks Q8_0, or "q4", which makes it IQ4_NL, except those that embed tokens
    and give logits: they become Q8_0. Blocks keep theirs unless `precision` is "f32"; those of WIDENED_BLOCKS
    become Q8_0.
    """
    if len(shape) != 2 or name == "embed.position":
        return "F32"
    if precision != "f32" and stored in COMPUTED_BLOCKS:
        return stored
    if precision == "q8" or (precision != "f32" and stored in WIDENED_BLOCKS):
        return "Q8_0"
    if precision == "q4":
        return "Q8_0" if name in ("embed.token", "output.weight") else "IQ4_NL"
    return stored if stored in ("F16", "BF16") else "F32"


def computed_precision(config: ModelConfig, stored_type: Callable[[str], str], precision: str) -> str:
    """Return "f32" for "auto" where every matrix is computed in f32."""
    kinds = (
        computed_type(name, shape, stored_type(name), precision)
        for name, shape in tensor_shapes(config).items()
    )
    rounds = precision != "auto" or any(rounds_inputs(kind, precision) for kind in kinds)
    return precision if rounds else "f32"


def rounds_inputs(kind: str, precision: str) -> bool:
    """Return whether a matrix of `computed_type` rounds its inputs: to 8 bits for blocks, or to bfloat16."""
    return kind in COMPUTED_BLOCKS or (kind == "BF16" and precision == "auto" and multiplies_bf16())


def input_bytes(kind: str, precision: str) -> float:
    """Return the bytes that a value of an input takes in the form that matrices of a type read.

    It is 8 bits beside 16 bytes per group of 32, bfloat16, or f32 in another order for many tokens.
    """
    return (1.5 if kind in COMPUTED_BLOCKS else 2) if rounds_inputs(kind, precision) else 4


def kv_type_of(kv: str, *, rounded: bool) -> str:
    """Return the type of keys and values: "auto" is f16 where some matrix rounds its inputs, else f32."""
    if kv == "auto":
        return "f16" if rounded else "f32"
    return kv


def head_bytes(head_dim: int, kv_type: str) -> int:
    """Return the bytes that the keys, or the values, of one position and head take in the engine.

    "q8" is a byte per feature and two bytes of scale per group of 32 features.
    """
    padded = -(-head_dim // 16) * 16
    if kv_type == "q8":
        return padded + 2 * -(-head_dim // 32)
    return padded * (2 if kv_type == "f16" else 4)


def tensor_bytes(name: str, shape: tuple[int, ...], kind: str) -> int:
    """Return the bytes that a tensor takes in the engine, as one of the types of `computed_type`."""
    rows = -(-shape[0] // 16) * 16 if len(shape) == 2 and name != "embed.position" else shape[0]
    columns = shape[1] if len(shape) == 2 else 1
    if kind in COMPUTED_BLOCKS:  # panels of 16 rows, each a whole number of cache lines
        block = BLOCKS[kind]
        size = block.bytes + (4 if kind in ("Q4_K", "Q5_K") else 0)  # 16 scales of 6 bits take 8 bits each
        return rows // 16 * -(-(-(-columns // block.elements) * 16 * size) // 64) * 64
    return rows * columns * (4 if kind == "F32" else 2)


def plan_memory(
    config: ModelConfig,
    stored_type: Callable[[str], str],
    context: int | None = None,
    precision: str = "f32",
    kv: str = "auto",
) -> MemoryPlan:
    """Predict the memory of a model at a precision, with keys and values of one of `KV_TYPES`.

    Example: GPT-2 small from F32 is 497,759,232 bytes of weights.
    """
    weights, rounded, forms = 0, False, set()
    for name, shape in tensor_shapes(config).items():
        kind = computed_type(name, shape, stored_type(name), precision)
        rounded = rounded or rounds_inputs(kind, precision)
        weights += tensor_bytes(name, shape, kind)
        if len(shape) == 2 and name != "embed.position":
            forms.add(input_bytes(kind, precision))
    heads = config.head_dim * (2 * config.n_head + 2 * config.n_kv_head)
    inner = config.n_inner * (2 if config.gated_mlp else 1)
    widest = max(config.n_embd, config.n_head * config.head_dim, config.n_inner)
    streams = 3 if config.parallel else 2
    activations = CHUNK * ((streams * config.n_embd + heads + inner) * 4 + math.ceil(widest * sum(forms)))
    kv_type = kv_type_of(kv, rounded=rounded)
    of_layer = config.n_kv_head * 2 * head_bytes(config.head_dim, kv_type)
    windows = [block.window for block in config.block_attention if block.window]
    return MemoryPlan(
        weights=weights,
        activations=activations,
        cache_per_position=config.n_layer * of_layer,
        kv_type=kv_type,
        context=context or config.n_positions,
        windowed_per_position=len(windows) * of_layer,
        window=max(windows, default=0),
    )


def checked_context(config: ModelConfig, context: int | None) -> int:
    """Return the positions that an engine computes, by default the model's; BadInput for too many."""
    if context is None:
        return config.n_positions
    if not 1 <= context <= config.most_positions:
        since = f": longer ones are not computed, since {config.limit.why}" if config.limit else ""
        raise BadInput(f"context must be 1..{config.most_positions:,}, got {context:,}{since}")
    return context
