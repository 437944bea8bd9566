"""`pophood.tune`: what is asked for in words becomes one run (`tuning.py`). Torch comes when that begins."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.errors import BadInput
from pophood.train.data import DataOptions
from pophood.train.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step
from pophood.train.run.new_model import Scratch, scratch_for
from pophood.train.run.tuning import Paths, Tuning, default_out
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.torch_install import require_torch

if TYPE_CHECKING:
    from pophood.model.lm import LM


def tune(
    model: LM | str | PathLike[str] | None,
    paths: Paths,
    out: str | PathLike[str] | None = None,
    *,
    method: str | None = None,
    from_scratch: str | None = None,
    vocabulary: int | None = None,
    lora: LoraSettings | Mapping[str, Any] | None = None,
    data: DataOptions | None = None,
    resume: bool = False,
    overwrite: bool = False,
    shard: bool = False,
    tensorboard: bool = False,
    **settings: Any,
) -> Tuning:
    """Fine-tune a model on files: iterate over what comes back; the result is in its folder at the end.

    `from_scratch` is a size ("gpt2-tiny"; `pophood.train.data.SIZES`): a new model of that size, its
    `vocabulary` made from the files, learns whole; `model` is None then. `settings` are the fields of
    TrainSettings (minutes, steps, epochs, length, batch_size, learning_rate...). Raises BadInput, NotFound
    (also where torch is missing, with the command that brings it).

        for event in pophood.tune("smollm2", "notes.txt", minutes=5): print(event)
        for event in pophood.tune(None, "notes.txt", from_scratch="gpt2-tiny"): print(event)
    """
    require_torch()
    from pophood.model import lm as models

    unknown = sorted(set(settings) - set(TrainSettings.__dataclass_fields__))
    if unknown:
        known = ", ".join(TrainSettings.__dataclass_fields__)
        raise BadInput(f"no setting is called {', '.join(unknown)}; there are: {known}")
    if from_scratch is not None and model is not None:
        raise BadInput(f"from_scratch={from_scratch!r} makes a model of its own: give None for the model")
    if method not in (None, "lora", "full", "last"):
        raise BadInput(f"method is {method!r}; wanted lora, full or last")
    if resume:
        _refuse_settings({**settings, "method": method, "lora": lora, "data": data})
    opened: LM | Scratch | None = None
    if model is None:
        files = [Path(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths)]
        out = out if out is not None else default_out(files, "scratch") if from_scratch else None
        seed = {"seed": settings["seed"]} if "seed" in settings else {}
        opened = scratch_for(
            paths, out or "", from_scratch, resume=resume, vocabulary=vocabulary, data=data, **seed
        )
    elif vocabulary is not None:
        raise BadInput(f"vocabulary={vocabulary} is for from_scratch; a model has its own: leave it out")
    kind: Any = method or ("full" if opened is not None else "lora")
    chosen = lora if isinstance(lora, LoraSettings) else LoraSettings(**(lora or {}))
    wanted = TrainSettings(method=kind, lora=chosen, **settings)
    if opened is None:
        opened = model if isinstance(model, models.LM) else models.load(model)
    how: Any = {"resume": resume, "overwrite": overwrite, "shard": shard, "tensorboard": tensorboard}
    return Tuning(opened, paths, out, wanted, data, **how)


def _refuse_settings(given: Mapping[str, Any]) -> None:
    """Raise BadInput for what a resumed run has already; minutes may be given anew."""
    told = sorted(name for name, value in given.items() if value is not None and name != "minutes")
    if told:
        raise BadInput(f"resume goes on with the settings that the run has: leave out {', '.join(told)}")


__all__ = [
    "Evaluated",
    "Event",
    "Finished",
    "Sampled",
    "Saved",
    "Started",
    "Step",
    "Tuning",
    "default_out",
    "tune",
]
