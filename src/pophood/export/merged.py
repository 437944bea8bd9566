"""Merged: a model's weights with adapters folded in, one tensor at a time; nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Adapter, Floats
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput
from pophood.model.bundle import Weights


class Merged:
    """What an export means to write. An engine loads it too (`engine.StoredWeights`).

    merged = Merged(bundle.config, bundle.weights, [(adapter, 1.0)])
    merged("blocks.0.attn.q.weight")            # [out, in] float32
    """

    def __init__(
        self, config: ModelConfig, weights: Weights, adapters: Sequence[tuple[Adapter, float]] = ()
    ) -> None:
        for adapter, scale in adapters:
            adapter.check(tensor_shapes(config))
            if not np.isfinite(scale):
                raise BadInput(f"the scale of {adapter.name} is {scale}; wanted a number such as 0.5")
        self.config = config
        self.adapters = tuple(adapters)
        self._weights = weights
        self._changed = {target for adapter, _ in adapters for target in adapter.targets}

    def __call__(self, name: str) -> Floats:
        """The float32 values of one canonical tensor."""
        values = self._weights[name]
        for adapter, scale in self.adapters:
            values = adapter.fold(name.removesuffix(".weight"), values, scale)
        return values

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """As `Weights.stored`: the file's own values where nothing is changed."""
        if name.removesuffix(".weight") in self._changed:
            return "F32", self(name)
        return self._weights.stored(name)

    def stored_type(self, name: str) -> str:
        """As `Weights.stored_type`; a changed matrix is "F32"."""
        if name.removesuffix(".weight") in self._changed:
            return "F32"
        return self._weights.stored_type(name)
