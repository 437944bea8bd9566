"""The source of an export: the files of a bundle, and its weights with adapters folded in (`Merged`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Adapter, Floats
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput
from pophood.formats import open_gguf
from pophood.formats.sniff import weights_at
from pophood.model.bundle import Bundle, Weights


class Merged:
    """The weights to export, merged one tensor at a time and not kept. An engine can load them too.

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
        """Return the float32 values of one canonical tensor."""
        values = self._weights[name]
        for adapter, scale in self.adapters:
            values = adapter.fold(name.removesuffix(".weight"), values, scale)
        return values

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """Return the type and values as `Weights.stored` does; a changed matrix is float32."""
        if name.removesuffix(".weight") in self._changed:
            return "F32", self(name)
        return self._weights.stored(name)

    def stored_type(self, name: str) -> str:
        """Return the type as `Weights.stored_type` does; a changed matrix is "F32"."""
        if name.removesuffix(".weight") in self._changed:
            return "F32"
        return self._weights.stored_type(name)


def source_weights(bundle: Bundle) -> Path:
    """Return the weights file: a .safetensors file, the index or first shard, or the (first) GGUF file."""
    return weights_at(bundle.path)


def source_folder(bundle: Bundle) -> Path:
    """Return the folder that holds config.json and the tokenizer."""
    return source_weights(bundle).parent


def source_metadata(bundle: Bundle) -> Mapping[str, Any]:
    """Return the metadata of a GGUF source; {} for a folder."""
    return open_gguf(source_weights(bundle)).metadata if bundle.file_format == "gguf" else {}
