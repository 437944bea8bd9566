"""The settings of a run where nobody has named them: by its model, and by how it is started. No torch."""

from __future__ import annotations

from dataclasses import replace

from pophood.config import ModelConfig
from pophood.errors import BadInput
from pophood.train.run.scratch import scratch_rate
from pophood.train.settings import TrainSettings

MINUTES = 5.0


def for_model(
    settings: TrainSettings, config: ModelConfig, *, from_scratch: bool = False, shard: bool = False
) -> TrainSettings:
    """With five minutes where no end is given, rows that the model's positions suffice for, and its rate.

    Raises BadInput for what contradicts itself, or asks for more blocks or positions than there are.
    """
    if shard and settings.base == "q8":
        raise BadInput("--shard spreads weights of 32 bits, got --base q8: leave out one of them")
    if shard and settings.precision == "auto":
        settings = replace(settings, precision="f32")
    if settings.steps is None and settings.epochs is None and settings.minutes is None:
        settings = replace(settings, minutes=MINUTES)
    if from_scratch:
        if settings.method != "full":
            raise BadInput(f"from scratch everything learns: leave out the method, got {settings.method}")
        if settings.type != "auto":
            raise BadInput(f"a model from scratch is written in float32: leave out type {settings.type}")
        if settings.learning_rate is None:
            settings = replace(settings, learning_rate=scratch_rate(config))
    if settings.method == "last" and settings.last_blocks > config.n_layer:
        raise BadInput(
            f"the model has {config.n_layer} blocks, got {settings.last_blocks} to train: lower --last-blocks"
        )
    if settings.length > config.n_positions and settings.length != TrainSettings().length:
        raise BadInput(
            f"a length of {settings.length:,} is over the model's {config.n_positions:,} positions:"
            " lower --length"
        )
    return replace(settings, length=min(settings.length, config.n_positions))


def shortened(wanted: TrainSettings, settings: TrainSettings) -> list[str]:
    """A line that says so where the model has too few positions for the rows that were wanted."""
    if settings.length == wanted.length:
        return []
    return [f"rows have {settings.length:,} positions instead of {wanted.length:,}: the model has no more"]
