"""The folder of a run: what stands in it while it learns, and the result at its end.

notes-lora/
  tune.json           what the run was told, its data, its plan: enough to go on with --resume
  events.jsonl        every event, one per line, as it happens
  checkpoints/        the last and the best, until the run is complete
  trunk/              states below the lowest block that learns, until then too
  adapter_config.json adapter_model.safetensors [chat_template.jinja]   the result (LoRA), as PEFT has it
  config.json model.safetensors tokenizer.json ...                      the result (full, last); from scratch
                      all but the weights are there from the beginning, and what a resumed run begins with
  report.json report.html loss.svg
  events.out.tfevents.*  with --tensorboard
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.config import tensor_shapes
from pophood.errors import BadFile, BadInput, NotFound
from pophood.export.hf.hf_folder import write_folder
from pophood.export.merged import Merged
from pophood.export.peft_writer import write_adapter
from pophood.export.types import chosen
from pophood.system import atomic_write, check_writable_target
from pophood.train.data import DataOptions
from pophood.train.events import Event, Started, as_line
from pophood.train.model.build import TrainedWeights, adapter_of
from pophood.train.report.measures import Measures
from pophood.train.report.samples import Prompt
from pophood.train.report.tensorboard import Board, has_board
from pophood.train.run.plan import KEPT, Plan

if TYPE_CHECKING:
    import torch

    from pophood.train.loop.trainer import Trainer
    from pophood.train.tune import Tuning

FACTS, EVENTS, CHECKPOINTS, REPORT = "tune.json", "events.jsonl", "checkpoints", "report.json"
State = tuple[Mapping[str, "torch.Tensor"], Mapping[str, Any]]
Resumed = State


class RunFolder:
    """Reads and writes one run's folder. `RunFolder(Path("notes-lora")).facts()["base"]`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.board: Board | None = None

    # ---- the beginning ----

    def facts(self) -> dict[str, Any]:
        """tune.json; raises NotFound without it, BadFile for damage."""
        place = self.path / FACTS
        try:
            facts = json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"{self.path}: holds no run of tune: start one without --resume") from None
        except ValueError as error:
            raise BadFile(f"{place}: is no JSON ({error}): start anew with --overwrite") from None
        if not isinstance(facts, dict) or "settings" not in facts:
            raise BadFile(f"{place}: says nothing of settings: start anew with --overwrite")
        return facts

    def check_free(self, *, overwrite: bool) -> None:
        """Raise BadInput for a folder with something in it, unless it is a run that may be replaced.

        BadInput or PophoodError where none can be made or written to: before anything is computed, not at
        the first write.
        """
        check_writable_target(self.path, folder=True)
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not (self.path / FACTS).is_file():
            raise BadInput(f"{self.path}: is already there, and no run of tune: name another with -o")
        if not overwrite:
            unfinished = (self.path / CHECKPOINTS).is_dir()
            ways = "go on with --resume, " if unfinished else ""
            raise BadInput(
                f"{self.path}: holds a run already: {ways}name another with -o, or add --overwrite"
            )

    def check_same(self, tuning: Tuning) -> None:
        """Raise BadInput if a run is to go on with another model or other data than it began with."""
        facts = self.facts()
        if facts["base"]["name"] != tuning.base["name"]:
            raise BadInput(
                f"{self.path}: the run tunes {facts['base']['name']}, not {tuning.base['name']}:"
                " name that model"
            )
        if facts["data"] != data_key(tuning):
            raise BadInput(
                f"{self.path}: the data, or how it is read, has changed since the run began:"
                " give it as it was, or start anew with --overwrite"
            )

    def check_alike(self, tuning: Tuning) -> None:
        """Raise BadInput if the processes of a run are about to do different things; one cannot."""

    def checkpoint(self, announce: Callable[[str], object]) -> Resumed:
        """The newest whole checkpoint; raises NotFound if there is none."""
        from pophood.train.checkpoint.save_load import latest, load

        self.facts()
        found = latest(self.path / CHECKPOINTS, announce)
        if found is None:
            why = "the run is complete" if (self.path / REPORT).is_file() else "nothing was saved yet"
            raise NotFound(
                f"{self.path}: has no checkpoint to go on from: {why}; start anew with --overwrite"
            )
        return load(found)

    def begin(self, tuning: Tuning, *, overwrite: bool) -> None:
        """Write tune.json, before the first step; an older run goes now, if it may."""
        self.check_free(overwrite=overwrite)
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        facts = {
            "pophood": version("pophood"),
            "base": tuning.base,
            "from_scratch": tuning.scratch.size if tuning.scratch else None,
            "paths": [str(path.absolute()) for path in tuning.paths],
            "settings": asdict(tuning.settings),
            "data": data_key(tuning),
            "data_options": _plain(asdict(tuning.options)),
            "format": tuning.data.report.format,
            "prompts": [asdict(prompt) for prompt in tuning.prompts],
            "before": tuning.before.as_dict() if tuning.before else None,
            "plan": tuning.plan.as_dict() if tuning.plan else None,
        }
        self.write(FACTS, json.dumps(facts, indent=2, ensure_ascii=False))
        if tuning.scratch is not None:
            tuning.scratch.write(self.path)

    def data_options(self) -> DataOptions:
        """How the data was read."""
        said = dict(self.facts()["data_options"])
        cache = said.pop("cache")
        paths = tuple(Path(path) for path in said.pop("validation_paths"))
        return DataOptions(**said, validation_paths=paths, cache=Path(cache) if cache else None)

    def prompts(self) -> list[Prompt]:
        """What is sampled from."""
        return [Prompt(tuple(said["ids"]), said["text"]) for said in self.facts()["prompts"]]

    def before(self) -> Measures:
        """What was measured before the first step."""
        said = dict(self.facts()["before"])
        return Measures(**{**said, "samples": tuple(said["samples"])})

    def plan(self) -> Plan:
        """What was planned before the first step."""
        return Plan.of(self.facts()["plan"])

    # ---- on the way ----

    def note(self, event: Event) -> None:
        """Add one line to events.jsonl, readable at once."""
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(as_line(event) + "\n")
        if self.board is not None and isinstance(event, Started):
            self.board.begin(self.events())
        elif self.board is not None:
            self.board.see(json.loads(as_line(event)))

    def open_board(self, wanted: bool, *, resume: bool) -> None:
        """Note events for TensorBoard too if `wanted`, or if the run that is resumed did. Raises NotFound."""
        if wanted or (resume and has_board(self.path)):
            self.board = Board(self.path)

    def close_board(self) -> None:
        """Write what TensorBoard's file still lacks."""
        if self.board is not None:
            self.board.close()

    def events(self) -> list[dict[str, Any]]:
        """The lines of events.jsonl so far: none that a crash has cut, none of steps that were done again."""
        found: list[dict[str, Any]] = []
        for line in (self.path / EVENTS).read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["event"] == "started":
                first = event["first_step"]
                found = [other for other in found if other.get("step", 0) <= first]
            found.append(event)
        return found

    def save(self, state: State) -> str:
        """A checkpoint; where it stands."""
        from pophood.train.checkpoint.save_load import save

        return str(save(self.path / CHECKPOINTS, state, keep=KEPT))

    def best(self, trainer: Trainer, loss: float | None) -> Resumed | None:
        """The checkpoint of the lowest validation loss, if it is of another step and beats `loss`."""
        from pophood.train.checkpoint.save_load import best, load

        found = best(self.path / CHECKPOINTS)
        if found is None or loss is None:
            return None
        tensors, facts = load(found)
        if facts["step"] == trainer.step or facts["validation_loss"] >= loss:
            return None
        return tensors, facts

    def use_best(self, trainer: Trainer, loss: float | None) -> int:
        """Put the checkpoint of the lowest validation loss into the model, if it beats `loss`; its step."""
        best = self.best(trainer, loss)
        if best is None:
            return trainer.step
        tensors, facts = best
        trainer.put(tensors)
        return int(facts["step"])

    # ---- the end ----

    def finish(self, tuning: Tuning, trainer: Trainer, *, complete: bool) -> None:
        """Write the result and its report; of a complete run no checkpoint stays."""
        bundle = tuning.lm.bundle
        if tuning.settings.method == "lora":
            adapter = adapter_of(trainer.model, tuning.settings, self.path.name, tuning.base)
            write_adapter(self.path, adapter, bundle.config, tuning.data.template)
        elif tuning.scratch is not None:
            weights = TrainedWeights(bundle, trainer.model).as_weights()
            tuning.scratch.write_weights(self.path, weights, tuning.data.template)
        else:
            merged = Merged(bundle.config, TrainedWeights(bundle, trainer.model).as_weights())
            kind = None if tuning.settings.type == "auto" else tuning.settings.type
            types = chosen(kind, bundle.weights, tensor_shapes(bundle.config), gguf=False)
            write_folder(bundle, merged, self.path, types, tuning.data.template)
        if complete:
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        atomic_write(self.path / name, f"{text}\n".encode())

    @property
    def bytes(self) -> int:
        """What the folder takes on the disk."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def data_key(tuning: Tuning) -> str:
    """What tells whether the data is still the same: the name of its cache, made from content and options."""
    return Path(tuning.data.report.cache).name


def _plain(value: Any) -> Any:
    """Paths as texts, for JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value
