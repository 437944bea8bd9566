"""Settings that depend on the model, the disk, the device, and on how a run is started.

pophood is made for the processor; CUDA and MPS work as torch has them. There all numbers are float32, and the
output of frozen blocks is not cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pophood.config import ModelConfig
from pophood.errors import BadInput, NotFound
from pophood.system import free_disk
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.run.scratch import scratch_rate
from pophood.train.settings import DEVICES, TrainSettings
from pophood.train.torch_install import import_torch

MINUTES = 5.0
MOST_CACHED = 20.0  # GiB of cached hidden states on disk, if half of the free space is more


def for_model(
    settings: TrainSettings, config: ModelConfig, *, from_scratch: bool = False, shard: bool = False
) -> TrainSettings:
    """Fill in defaults: 5 minutes if no end is set, a length that fits the model, the rate of a new model.

    Raises BadInput for contradictions, and for more blocks or positions than the model has.
    """
    if shard and settings.base == "q8":
        raise BadInput("--shard spreads weights of 32 bits, got --base q8: leave out one of them")
    if shard and settings.precision == "auto":
        settings = replace(settings, precision="f32")
    if settings.steps is None and settings.epochs is None and settings.minutes is None:
        settings = replace(settings, minutes=MINUTES)
    if from_scratch:
        if settings.method != "full":
            raise BadInput(
                f"from scratch all weights are trained: leave out the method, got {settings.method}"
            )
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
            f"a length of {settings.length:,} exceeds the model's {config.n_positions:,} positions:"
            " lower --length"
        )
    return replace(settings, length=min(settings.length, config.n_positions))


def length_messages(wanted: TrainSettings, settings: TrainSettings) -> Iterator[str]:
    """Yield a line about the length of rows if `for_model` had to shorten it."""
    if settings.length != wanted.length:
        yield f"rows have {settings.length:,} positions instead of {wanted.length:,}: the model has no more"


def with_cache_limit(settings: TrainSettings, out: Path) -> TrainSettings:
    """Set the cache limit of method "last" from the free disk space, unless it is set.

    A resumed run has the limit in its settings, so it keeps the same one.
    """
    if settings.method != "last" or settings.cache_limit is not None:
        return settings
    return replace(settings, cache_limit=min(MOST_CACHED, free_disk(out) / 2 / 2**30))


def for_device(settings: TrainSettings) -> TrainSettings:
    """Adapt the settings to their device: on CUDA and MPS nothing is cached on disk.

    Raises BadInput for options that only the processor has, NotFound for a device that torch does not find.
    """
    device = settings.device
    if device == "cpu":
        return settings
    if device not in DEVICES:
        raise BadInput(f"no device is called {device!r}; wanted one of {', '.join(DEVICES)}")
    if settings.base == "q8":
        raise BadInput(
            f"an 8-bit base is for the processor, got device {device}: leave out --base or --device"
        )
    if settings.precision == "bf16":
        raise BadInput(f"bf16 is for the processor, got device {device}: leave out --precision or --device")
    if not ProcessGroup.from_environment().alone:
        raise BadInput(f"several processes train on the processor, got device {device}: leave out --device")
    require_device(device)
    return replace(settings, cache_limit=0.0) if settings.method == "last" else settings


def require_device(device: str) -> None:
    """Raise NotFound unless torch finds the device on this machine."""
    import_torch()
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device]:
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise NotFound(
            f"torch {torch.__version__} finds no {device} device here, only {names}: leave out --device, or"
            " install a build of torch that supports it (https://pytorch.org/get-started)"
        )
