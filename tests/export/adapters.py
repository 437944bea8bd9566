"""Random adapters for the random models of tests/tiny.py."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Adapter, Pair, bare
from pophood.config import ModelConfig, tensor_shapes
from pophood.model.engine import Engine, StoredWeights

EVERYWHERE = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.down")


def random_pair(target: str, inputs: int, outputs: int, rank: int) -> Pair:
    """Return two random matrices that change the text: `random_pair("blocks.0.attn.q", 64, 64, 4)`."""
    random = np.random.default_rng([zlib.crc32(target.encode()), rank])
    a = random.standard_normal((rank, inputs), np.float32) / np.float32(np.sqrt(inputs))
    b = random.standard_normal((outputs, rank), np.float32) / np.float32(np.sqrt(rank))
    return a, b * np.float32(0.5)


def random_adapter(
    config: ModelConfig,
    *,
    rank: int = 4,
    alpha: float = 6.0,
    scale: float | None = None,
    kinds: Sequence[str] = EVERYWHERE,
    blocks: Sequence[int] | None = None,
) -> Adapter:
    """Return an adapter of rank `rank` for the matrices `kinds` of the given blocks (default: all)."""
    wanted = range(config.n_layer) if blocks is None else blocks
    targets = {}
    for name, shape in tensor_shapes(config).items():
        target = name.removesuffix(".weight")
        if (
            name.startswith("blocks.")
            and len(shape) == 2
            and bare(target) in kinds
            and int(target[7]) in wanted
        ):
            targets[target] = random_pair(target, shape[1], shape[0], rank)
    return Adapter("tuned", rank, alpha, alpha / rank if scale is None else scale, targets, {"name": "base"})


def same(one: Adapter, other: Adapter) -> bool:
    """Return whether two adapters are the same numbers, bit for bit."""
    return (
        (one.rank, one.alpha, one.scale) == (other.rank, other.alpha, other.scale)
        and one.targets.keys() == other.targets.keys()
        and all(
            np.array_equal(half, theirs)
            for target, pair in one.targets.items()
            for half, theirs in zip(pair, other.targets[target], strict=True)
        )
    )


def logits(config: ModelConfig, weights: StoredWeights, ids: Sequence[int]) -> NDArray[Any]:
    """Return the engine's logits after every token: [T, V]."""
    engine = Engine(config, "f32", threads=1)
    engine.load(weights)
    with engine.sequence() as sequence:
        return engine.logits([(sequence, ids)], rows="all")
