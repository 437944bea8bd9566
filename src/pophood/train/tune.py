"""`pophood.tune`: turn its arguments into a run (`run/tuning.py`). Torch is imported when the run begins."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from pophood.errors import BadInput
from pophood.model.lm import LM, load
from pophood.train.data import DataOptions
from pophood.train.events import Evaluated, Event, Finished, Sampled, Saved, Started, Step
from pophood.train.run.new_model import NewModel, new_model_for
from pophood.train.run.setup import default_out
from pophood.train.run.tuning import Paths, Tuning
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.torch_install import require_torch


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
    lens: bool = False,
    **settings: Any,
) -> Tuning:
    """Fine-tune a model on files: iterate over the result for its events; its folder has the trained model.

    `from_scratch` is a size such as "gpt2-tiny" (`run.scratch.SIZES`): with `model=None`, a new model of
    that size is trained whole, with a `vocabulary` trained on the files. `settings` are the fields of
    TrainSettings (minutes, steps, epochs, length, batch_size, learning_rate...). Raises BadInput and
    NotFound; without torch with the command that installs it.

        for event in pophood.tune("smollm2", "notes.txt", minutes=5): print(event)
        for event in pophood.tune(None, "notes.txt", from_scratch="gpt2-tiny"): print(event)
    """
    require_torch()
    unknown = sorted(set(settings) - set(TrainSettings.__dataclass_fields__))
    if unknown:
        known = ", ".join(TrainSettings.__dataclass_fields__)
        raise BadInput(f"no setting is called {', '.join(unknown)}; wanted one of: {known}")
    if from_scratch is not None and model is not None:
        raise BadInput(f"from_scratch={from_scratch!r} creates a new model: pass None as the model")
    if method not in (None, "lora", "full", "last"):
        raise BadInput(f"method is {method!r}; wanted lora, full or last")
    if resume:  # only the minutes may change
        given = {**settings, "method": method, "lora": lora, "data": data, "minutes": None}
        if names := sorted(name for name, value in given.items() if value is not None):
            raise BadInput(f"a resumed run keeps its settings: leave out {', '.join(names)}")
    opened: LM | NewModel | None = None
    if model is None:
        files = [Path(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths)]
        out = out if out is not None else default_out(files, "scratch") if from_scratch else None
        seed = {"seed": settings["seed"]} if "seed" in settings else {}
        opened = new_model_for(
            paths, out or "", from_scratch, resume=resume, vocabulary=vocabulary, data=data, **seed
        )
    elif vocabulary is not None:
        raise BadInput(f"vocabulary={vocabulary} is for from_scratch; a model has its own: leave it out")
    kind: Any = method or ("full" if opened is not None else "lora")
    chosen = lora if isinstance(lora, LoraSettings) else LoraSettings(**(lora or {}))
    wanted = TrainSettings(method=kind, lora=chosen, **settings)
    if opened is None:
        opened = model.at("f32") if isinstance(model, LM) else load(model, precision="f32")
    flags: Any = {"resume": resume, "overwrite": overwrite, "shard": shard, "tensorboard": tensorboard}
    flags["lens"] = lens
    return Tuning(opened, paths, out, wanted, data, **flags)


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
