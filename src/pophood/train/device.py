"""Device: where torch computes a run. pophood is made for the processor; CUDA and MPS are torch's own.

The model and its batches live on the device; whatever goes to the engine, to NumPy or into a file comes back
first. Elsewhere than on the processor everything is float32, and nothing is kept of frozen blocks.
"""

from __future__ import annotations

from dataclasses import replace

from pophood.errors import BadInput, NotFound
from pophood.train.distributed.process_group import World
from pophood.train.settings import DEVICES, TrainSettings


def settled(settings: TrainSettings) -> TrainSettings:
    """The settings as their device allows them.

    Raises BadInput for what only the processor does, NotFound for a device that torch does not find here.
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
    if not World.here().alone:
        raise BadInput(f"several processes train on processors, got device {device}: leave out --device")
    require(device)
    return replace(settings, cache_limit=0.0) if settings.method == "last" else settings


def require(device: str) -> None:
    """Raise NotFound unless torch finds the device on this machine."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise NotFound(
            f"torch {torch.__version__} finds no {device} device here, only {found}: leave out --device, or"
            " install a build of torch that supports it (https://pytorch.org/get-started)"
        )
