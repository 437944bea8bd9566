"""The result of a run: the trained weights in the run's folder, as an adapter or as a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pophood.config import tensor_shapes
from pophood.errors import Cancelled, EngineError, PophoodError
from pophood.export.adapter_writers import write_adapter
from pophood.export.hf.hf_folder import write_folder
from pophood.export.merged import Merged
from pophood.export.types import chosen
from pophood.train.model.build import TrainedWeights, adapter_of
from pophood.train.run.setup import RunSetup

if TYPE_CHECKING:
    from pophood.train.model.transformer import Model


def write_result(setup: RunSetup, model: Model) -> None:
    """Write the trained weights: an adapter in PEFT's format, or a model folder."""
    bundle, settings, template = setup.lm.bundle, setup.settings, setup.data.template
    if settings.method == "lora":
        adapter = adapter_of(model, settings, setup.out.name, setup.base)
        write_adapter(setup.out, adapter, bundle.config, template)
        return
    weights = TrainedWeights(bundle, model).as_weights()
    if setup.new_model is not None:
        setup.new_model.write_weights(setup.out, weights, template)
        return
    kind = None if settings.type == "auto" else settings.type
    types = chosen(kind, bundle.weights, tensor_shapes(bundle.config), gguf=False)
    write_folder(bundle, Merged(bundle.config, weights), setup.out, types, template)


def load_into_engine(setup: RunSetup, model: Model) -> None:
    """Load the weights trained so far into the engine."""
    from pophood.train.model.buffer_pool import release_free_memory

    lm = setup.lm
    if setup.settings.method == "lora":
        adapter = adapter_of(model, setup.settings, setup.out.name, setup.base)
        lm.engine.use_adapters([*lm.adapters, (adapter, 1.0)])
    else:
        lm.engine.load(TrainedWeights(lm.bundle, model))
    release_free_memory()  # the memory of the weights that the engine had before


def restore_engine(setup: RunSetup) -> None:
    """Give the engine back the weights that it had before the run."""
    lm = setup.lm
    if setup.settings.method == "lora":
        lm.engine.use_adapters(lm.adapters)
    else:
        lm.engine.load(lm.bundle.weights)


def nothing_learned(reason: str, steps: int, seconds: float, rate: float) -> PophoodError:
    """Return the error for a run that left all weights as they were; `reason` is why it ended."""
    if reason == "stopped":
        return Cancelled(f"stopped after {steps} steps: nothing was learned, and nothing is written")
    if not steps:
        return EngineError(
            f"no step was finished in {seconds:.0f} s, so nothing was learned and nothing is written:"
            " give more --minutes, or make a step smaller (--batch-size, --accumulation, --length)"
        )
    return EngineError(
        f"nothing was learned in {steps:,} steps, and nothing is written: no matrix has changed by more than"
        f" its rounding: raise --learning-rate ({rate:g} now), or see --show"
    )
