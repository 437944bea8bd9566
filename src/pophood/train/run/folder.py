"""The folder of a run: its state while it trains, and the result at its end. It stores, and decides nothing.

    notes-lora/
      tune.json               settings, data and plan of the run: all that --resume needs beside a checkpoint
      events.jsonl            every event as it happens, one per line
      checkpoints/            the last and the best one, until the run is complete
      trunk/                  cached hidden states that enter the first trained block, until then too
      adapter_config.json adapter_model.safetensors [chat_template.jinja]   the result of LoRA, as PEFT has it
      config.json model.safetensors tokenizer.json ...                      the result of full and last
      report.json report.html loss.svg
      events.out.tfevents.*   with --tensorboard

Of a model from scratch all files but the weights are there from the start, for a resumed run.

With several processes rank 0 alone reads and writes, since another machine may not have the folder. All
ranks must make the same calls, except for `note`, `events` and the methods of the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.errors import BadFile, BadInput, NotFound
from pophood.system import atomic_write, check_writable_target
from pophood.train.data import DataOptions
from pophood.train.distributed.process_group import LOCAL, ProcessGroup
from pophood.train.events import Event, Started, as_line
from pophood.train.report.measures import Measures, SamplePrompt
from pophood.train.report.tensorboard import Board, has_board
from pophood.train.run.plan import CHECKPOINTS, Plan

if TYPE_CHECKING:
    from pophood.train.checkpoint.save_load import TrainerState

FACTS, EVENTS, CHECKPOINT_FOLDER, REPORT = "tune.json", "events.jsonl", "checkpoints", "report.json"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The contents of tune.json: the facts about a run that are settled before its first step."""

    base: Mapping[str, str]  # name and architecture of the model
    from_scratch: str | None  # size of a new model
    paths: tuple[str, ...]
    settings: Mapping[str, Any]
    data: str  # name of the data's cache, which changes with the data
    data_options: DataOptions
    format: str
    prompts: tuple[SamplePrompt, ...]
    before: Measures | None
    plan: Plan
    pophood: str = field(default_factory=lambda: version("pophood"))

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        return {"pophood": self.pophood, **_paths_as_text(asdict(self)), "plan": self.plan.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunFacts:
        """Build the facts from the result of `as_dict`; raises KeyError, TypeError."""
        options, before = values["data_options"], values["before"]
        validation_paths = tuple(Path(path) for path in options["validation_paths"])
        cache = Path(options["cache"]) if options["cache"] else None
        return cls(
            base=values["base"],
            from_scratch=values.get("from_scratch"),
            paths=tuple(values["paths"]),
            settings=values["settings"],
            data=values["data"],
            data_options=DataOptions(**{**options, "validation_paths": validation_paths, "cache": cache}),
            format=values["format"],
            prompts=tuple(SamplePrompt(tuple(prompt["ids"]), prompt["text"]) for prompt in values["prompts"]),
            before=Measures(**{**before, "samples": tuple(before["samples"])}) if before else None,
            plan=Plan.from_dict(values["plan"]),
            pophood=values["pophood"],
        )


class RunFolder:
    """Reads and writes the folder of a run. `RunFolder(Path("notes-lora")).facts().base["name"]`."""

    def __init__(self, path: Path, group: ProcessGroup = LOCAL) -> None:
        self.path, self.group = path, group
        self.board: Board | None = None

    # ---- before the first step ----

    def facts(self) -> RunFacts:
        """Read tune.json; raises NotFound if there is none, BadFile if it is damaged."""
        values = self.group.on_rank_zero(self.read_facts)
        try:
            return RunFacts.from_dict(values)
        except (KeyError, TypeError) as error:
            raise self.group.shared_error(
                BadFile(
                    f"{self.path / FACTS}: incomplete or of another version ({error}): start over with"
                    " --overwrite"
                )
            ) from None

    def read_facts(self) -> dict[str, Any]:
        """Read tune.json on this rank, without checking more than that it is there and has settings."""
        path = self.path / FACTS
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotFound(f"{self.path}: holds no run of tune: start one without --resume") from None
        except ValueError as error:
            raise BadFile(f"{path}: not valid JSON ({error}): start over with --overwrite") from None
        if not isinstance(values, dict) or "settings" not in values:
            raise BadFile(f"{path}: holds no settings: start over with --overwrite")
        return values

    def check_free(self, *, overwrite: bool) -> None:
        """Raise BadInput if the folder has contents, unless they are a run that may be overwritten.

        Also raises BadInput or PophoodError if it cannot be created or written, before anything is computed.
        """
        self.group.on_rank_zero(lambda: self._check_free(overwrite))

    def _check_free(self, overwrite: bool) -> None:
        check_writable_target(self.path, folder=True)
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not (self.path / FACTS).is_file():
            raise BadInput(f"{self.path}: already exists and is no run of tune: name another with -o")
        if not overwrite:
            unfinished = (self.path / CHECKPOINT_FOLDER).is_dir()
            resume = "continue it with --resume, " if unfinished else ""
            raise BadInput(
                f"{self.path}: already holds a run: {resume}name another with -o, or add --overwrite"
            )

    def check_same(self, base: str, data: str) -> None:
        """Raise BadInput if a resumed run started with another model or other data."""
        self.group.on_rank_zero(lambda: self._check_same(base, data))

    def _check_same(self, base: str, data: str) -> None:
        facts = self.read_facts()
        if facts["base"]["name"] != base:
            raise BadInput(f"{self.path}: the run tunes {facts['base']['name']}, not {base}: name that model")
        if facts["data"] != data:
            raise BadInput(
                f"{self.path}: the data, or how it is read, has changed since the run began:"
                " restore it, or start over with --overwrite"
            )

    def checkpoint(self, announce: Callable[[str], object]) -> TrainerState:
        """Return the newest whole checkpoint, on every rank; raises NotFound if there is none."""
        self.facts()
        state = self._state_on_every_rank(lambda: self._newest(announce))
        assert state is not None
        return state

    def _newest(self, announce: Callable[[str], object]) -> TrainerState:
        from pophood.train.checkpoint.save_load import latest, load

        path = latest(self.path / CHECKPOINT_FOLDER, announce)
        if path is None:
            why = "the run is complete" if (self.path / REPORT).is_file() else "nothing was saved yet"
            raise NotFound(
                f"{self.path}: has no checkpoint to resume from: {why}; start over with --overwrite"
            )
        return load(path)

    def _state_on_every_rank(self, read: Callable[[], TrainerState | None]) -> TrainerState | None:
        """Read a state on rank 0; the other ranks receive its facts now, and each tensor when they use it."""
        tensors: list[Mapping[str, Any]] = []

        def read_facts() -> dict[str, Any] | None:
            state = read()
            if state is None:
                return None
            tensors.append(state[0])
            return dict(state[1])

        facts = self.group.on_rank_zero(read_facts)
        if facts is None:
            return None
        return self.group.broadcast_tensors(tensors[0] if tensors else None), facts

    def begin(self, facts: RunFacts, *, overwrite: bool) -> None:
        """Create the folder with tune.json; an older run is deleted if `overwrite`."""
        self.group.on_rank_zero(lambda: self._begin(facts, overwrite))

    def _begin(self, facts: RunFacts, overwrite: bool) -> None:
        self._check_free(overwrite)
        if self.path.exists():
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True)
        self.write(FACTS, json.dumps(facts.as_dict(), indent=2, ensure_ascii=False))

    def open_board(self, wanted: bool, *, resume: bool) -> None:
        """Write events for TensorBoard too if `wanted`, or if the resumed run did. Raises NotFound."""
        self.group.on_rank_zero(lambda: self._open_board(wanted or (resume and has_board(self.path))))

    def _open_board(self, wanted: bool) -> None:
        if wanted:
            self.board = Board(self.path)

    # ---- during the run ----

    def note(self, event: Event) -> None:
        """Add an event to events.jsonl, and flush it."""
        if not self.group.is_rank_zero:
            return
        with (self.path / EVENTS).open("a", encoding="utf-8") as file:
            file.write(as_line(event) + "\n")
        if self.board is not None and isinstance(event, Started):
            self.board.begin(self.events())
        elif self.board is not None:
            self.board.see(json.loads(as_line(event)))

    def close_board(self) -> None:
        """Write the rest of TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def events(self) -> list[dict[str, Any]]:
        """Return the events so far, without lines that a crash cut off and steps that were done again."""
        events: list[dict[str, Any]] = []
        for line in (self.path / EVENTS).read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event["event"] == "started":
                first = event["first_step"]
                events = [earlier for earlier in events if earlier.get("step", 0) <= first]
            events.append(event)
        return events

    def has_lens(self) -> bool:
        """Return whether the run so far has events of the logit lens."""
        return any(event["event"] == "looked" for event in self.events())

    def save(self, state: TrainerState) -> str:
        """Write a checkpoint, and return its path."""
        from pophood.train.checkpoint.save_load import save

        return str(save(self.path / CHECKPOINT_FOLDER, state, keep=CHECKPOINTS))

    def better(self, step: int, loss: float | None) -> TrainerState | None:
        """Return the checkpoint with the lowest validation loss, on every rank, if its loss is below `loss`.

        `step` and `loss` are those of the present weights; None for `loss` if nothing was evaluated.
        """
        return self._state_on_every_rank(lambda: self._better(step, loss))

    def _better(self, step: int, loss: float | None) -> TrainerState | None:
        from pophood.train.checkpoint.save_load import best, load

        path = best(self.path / CHECKPOINT_FOLDER)
        if path is None or loss is None:
            return None
        tensors, facts = load(path)
        if facts["step"] == step or facts["validation_loss"] >= loss:
            return None
        return tensors, facts

    # ---- at the end ----

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, whole or not at all."""
        atomic_write(self.path / name, f"{text}\n".encode())

    def remove_checkpoints(self) -> None:
        """Delete the checkpoints of a complete run."""
        shutil.rmtree(self.path / CHECKPOINT_FOLDER, ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder of a run that learned nothing."""
        self.close_board()
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def bytes(self) -> int:
        """Bytes of all files in the folder."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def _paths_as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _paths_as_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_paths_as_text(item) for item in value]
    return str(value.absolute()) if isinstance(value, Path) else value
