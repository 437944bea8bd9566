"""Between a bundle and a trainer: the model with what shall learn, and what it has learned as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Adapter
from pophood.model.bundle import Bundle, Weights
from pophood.train.settings import TrainSettings

if TYPE_CHECKING:
    from pophood.train.model.transformer import Model


def build(bundle: Bundle, settings: TrainSettings) -> Model:
    """The model in torch; only what the method trains requires a gradient. Raises BadInput for a misfit."""
    import torch

    from pophood.train.model.int8_linear import eight_bit_model
    from pophood.train.model.lora import add_lora
    from pophood.train.model.ops import give_back
    from pophood.train.model.precision import dtype_of, halve, load_halves, load_whole
    from pophood.train.model.transformer import Dropout, Model

    torch.manual_seed(settings.seed)  # LoRA's matrices start random
    dropout = Dropout(settings.dropout, settings.dropout, settings.dropout)
    half, eight = dtype_of(settings) is torch.bfloat16, settings.base == "q8"
    if eight:
        model = eight_bit_model(bundle.config, dropout, bundle.weights)
    else:
        with torch.device("meta"):
            model = Model(bundle.config, dropout)
    model.recompute = settings.recompute
    if settings.method == "lora":
        add_lora(model, settings.lora)
    elif settings.method == "last":
        model.requires_grad_(False)
        for block in model.blocks[-settings.last_blocks :]:
            block.requires_grad_(True)
    if not eight:
        (load_halves if half else load_whole)(model, bundle.weights)
    elif half:
        halve(model)
    give_back()
    return model.to(settings.device)


def adapter_of(model: Model, settings: TrainSettings, name: str, base: Mapping[str, str]) -> Adapter:
    """What LoRA has learned so far, copied."""
    from pophood.train.model.lora import lora_layers

    pairs = {
        target: (
            layer.lora_a.detach().float().cpu().numpy().copy(),
            layer.lora_b.detach().float().cpu().numpy().copy(),
        )
        for target, layer in lora_layers(model).items()
    }
    lora = settings.lora
    return Adapter(name, lora.rank, float(lora.alpha), lora.scale, pairs, dict(base))


class Trained:
    """A bundle's weights with what a full or partial training has made of some: read as `bundle.Weights`."""

    def __init__(self, bundle: Bundle, model: Model) -> None:
        self._weights = bundle.weights
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._low = model.low

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        from pophood.train.model.precision import joined

        if name not in self._trained:
            return self._weights[name]
        master = self._trained[name].detach().float()
        if name in self._low:
            master = joined(self._trained[name].detach(), self._low[name])
        values: NDArray[np.float32] = master.cpu().numpy()
        return values

    @property
    def changed(self) -> list[str]:
        """The canonical names that were trained."""
        return list(self._trained)

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """As `Weights.stored`."""
        return ("F32", self[name]) if name in self._trained else self._weights.stored(name)

    def stored_type(self, name: str) -> str:
        """As `Weights.stored_type`."""
        return "F32" if name in self._trained else self._weights.stored_type(name)

    def as_weights(self) -> Weights:
        """The same for who asks for that type: `export.merged.Merged` reads no more than is here."""
        return cast(Weights, self)
