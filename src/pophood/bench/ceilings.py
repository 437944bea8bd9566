"""Ceilings: the tokens per second that this machine's memory and multipliers would allow a model.

Decoding a token reads all weights once, and the keys and values of the tokens before it; reading a prompt
multiplies every weight with every token. The machine's own rates are measured, not looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pophood.bench.settings import Work
from pophood.config import tensor_shapes
from pophood.model.lm import LM
from pophood.model.memory import COMPUTED_BLOCKS, computed_type, plan_memory, tensor_bytes

Limit = Literal["memory", "multiplications"]


@dataclass(frozen=True, slots=True)
class ModelCost:
    """The bytes and operations that a model needs for a token.

    `weights`: bytes of the weights that every step reads, without rows that are only looked up.
    `cache`: bytes of keys and values per position, `windowed` of those in layers with attention windows, the
    widest of `window` positions. `inner`: operations per token in the blocks' matrices, a
    multiplication and an addition counted as two; `output`: those of the output matrix, per row of logits.
    `eight_bit` is True if all of these matrices are multiplied in 8 bits.
    """

    weights: int
    cache: int
    inner: int
    output: int
    eight_bit: bool
    windowed: int = 0
    window: int = 0

    @classmethod
    def of(cls, lm: LM) -> ModelCost:
        """Return the cost of a loaded model at its precision, without its adapters."""
        config, stored_type = lm.config, lm.bundle.weights.stored_type
        weights, inner, kinds = 0, 0, set()
        looked_up = {"embed.position", *([] if config.tied_output else ["embed.token"])}
        for name, shape in tensor_shapes(config).items():
            kind = computed_type(name, shape, stored_type(name), lm.engine.precision)
            if name in looked_up:
                continue
            weights += tensor_bytes(name, shape, kind)
            if len(shape) == 2:
                kinds.add(kind)
                inner += 2 * shape[0] * shape[1] if name.startswith("blocks.") else 0
        plan = plan_memory(config, stored_type, lm.engine.context, lm.engine.precision, lm.engine.kv)
        output = 2 * config.vocab_size * config.n_embd
        windowed = plan.windowed_per_position
        eight_bit = kinds <= set(COMPUTED_BLOCKS)
        return cls(
            weights, plan.cache_per_position, inner, output, eight_bit, windowed=windowed, window=plan.window
        )

    def cache_read(self, positions: float) -> float:
        """Return the bytes of keys and values that a token reads after so many positions."""
        return positions * (self.cache - self.windowed) + min(positions, self.window) * self.windowed

    def ceiling(
        self, work: Work, bandwidth: float | None, multiply_rate: float | None
    ) -> tuple[float, Limit] | None:
        """Return the most tokens per second of a work, and what limits it; None where no rate is known.

        `bandwidth` is in bytes per second, `multiply_rate` in 8-bit operations per second; both with the
        work's threads.
        """
        limits: list[tuple[float, Limit]] = []
        if work.kind == "decode" and bandwidth is not None:
            positions = work.depth + work.tokens / 2  # on average
            moved = self.weights + work.batch * self.cache_read(positions)
            limits.append((work.batch * bandwidth / moved, "memory"))
        if self.eight_bit and multiply_rate is not None:
            logits = self.output if work.kind == "decode" else self.output / work.tokens
            limits.append((multiply_rate / (self.inner + logits), "multiplications"))
        return min(limits, default=None)
