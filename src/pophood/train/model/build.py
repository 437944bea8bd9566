"""Builds the trainable model from a bundle, and takes the trained weights, or an adapter, out of it again."""

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


def build_model(bundle: Bundle, settings: TrainSettings) -> Model:
    """Build the torch model, in which only the parameters that the method trains require gradients.

    Prepares the process for training too: glibc keeps freed pages, and native kernels share torch's threads.
    Raises BadInput if LoRA targets a matrix that the model does not have.
    """
    import torch

    from pophood.train.model.buffer_pool import keep_freed_pages, release_free_memory
    from pophood.train.model.int8_linear import int8_model
    from pophood.train.model.lora import add_lora
    from pophood.train.model.ops import share_torch_threads
    from pophood.train.model.precision import dtype_of, load_bf16, load_f32, to_bf16
    from pophood.train.model.transformer import DropoutRates, Model

    keep_freed_pages()
    share_torch_threads()
    torch.manual_seed(settings.seed)  # the seed of LoRA's random matrices
    dropout = DropoutRates(settings.dropout, settings.dropout, settings.dropout)
    bf16, int8 = dtype_of(settings) is torch.bfloat16, settings.base == "q8"
    if int8:
        model = int8_model(bundle.config, dropout, bundle.weights)
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
    if not int8:
        (load_bf16 if bf16 else load_f32)(model, bundle.weights)
    elif bf16:
        to_bf16(model)
    release_free_memory()
    return model.to(settings.device)


def adapter_of(model: Model, settings: TrainSettings, name: str, base: Mapping[str, str]) -> Adapter:
    """Copy what LoRA has learned so far into an adapter."""
    from pophood.train.model.lora import lora_layers

    def array(parameter: Any) -> NDArray[np.float32]:
        values: NDArray[np.float32] = parameter.detach().float().cpu().numpy()
        return values.copy()

    lora = settings.lora
    pairs = {name: (array(layer.lora_a), array(layer.lora_b)) for name, layer in lora_layers(model).items()}
    return Adapter(name, lora.rank, float(lora.alpha), lora.scale, pairs, dict(base))


class TrainedWeights:
    """A bundle's weights, with the trained ones in place of the originals; has the interface of `Weights`."""

    def __init__(self, bundle: Bundle, model: Model) -> None:
        self._weights = bundle.weights
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._remainders = model.master_remainder

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        from pophood.train.model.precision import join_master

        if name not in self._trained:
            return self._weights[name]
        weight = self._trained[name].detach()
        master = join_master(weight, self._remainders[name]) if name in self._remainders else weight.float()
        values: NDArray[np.float32] = master.cpu().numpy()
        return values

    @property
    def changed(self) -> list[str]:
        """Canonical names of the trained parameters."""
        return list(self._trained)

    def stored(self, name: str) -> tuple[str, NDArray[Any]]:
        """Return a weight as `Weights.stored` does; a trained one is "F32"."""
        return ("F32", self[name]) if name in self._trained else self._weights.stored(name)

    def stored_type(self, name: str) -> str:
        """Return the type as `Weights.stored_type` does; that of a trained weight is "F32"."""
        return "F32" if name in self._trained else self._weights.stored_type(name)

    def as_weights(self) -> Weights:
        """Cast for `Merged` of the exporter, which uses only the methods defined here."""
        return cast(Weights, self)
