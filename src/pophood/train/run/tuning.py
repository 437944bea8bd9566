"""One run of fine-tuning, from a model and files to a folder with the result, as a stream of events.

    prepare ─► measure and plan ─► train ─► measure ─► write
    setup.py   calibration.py      loop/trainer.py     result.py

A run of minutes keeps to them (loop/clock.py): each part has a share, and less is measured if the machine
is slow. Torch is imported when a run begins, not with this module. Nothing is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pophood.errors import BadInput, Cancelled
from pophood.model.lm import LM
from pophood.train.data import DataOptions, DataProgress
from pophood.train.defaults import for_device, for_model, length_messages, with_cache_limit
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.events import Evaluated, Event, Finished, Noted, Sampled
from pophood.train.loop.chunk_store import FOLDER
from pophood.train.report.lens import looks
from pophood.train.report.measures import GLIMPSE, Measures, SamplePrompt, measure, prompts_of, sample
from pophood.train.report.report_card import Actual, Card, Change, changes_of, make_card
from pophood.train.run.calibration import NOTHING_WRITTEN, Calibration, calibrate, last_value, resume_clock
from pophood.train.run.folder import RunFacts, RunFolder
from pophood.train.run.new_model import NewModel
from pophood.train.run.plan import PeakMemory, Plan
from pophood.train.run.result import load_into_engine, nothing_learned, restore_engine, write_result
from pophood.train.run.setup import RunSetup, default_out, make_trainer, quantization_message, read_data
from pophood.train.settings import TrainSettings
from pophood.train.torch_install import import_torch, require_torch

if TYPE_CHECKING:
    from pophood.train.checkpoint.save_load import TrainerState
    from pophood.train.loop.trainer import Trainer

UNCHANGED = 2.0**-24  # a change below this share of a matrix is lost in the rounding of its numbers
Paths = Sequence[str | PathLike[str]] | str | PathLike[str]
ShouldStop = Callable[[], str | None]


class Tuning(Iterator[Event]):
    """A run: iterate over it for its events; `card` and `out` are complete at its end.

    That holds for a run that was stopped, too.

    A new model (`new_model.NewModel`) is trained whole. `should_stop` is asked between batches and returns
    why to stop ("stopped"), or None. `prompts` are texts to sample from (None: beginnings of the data); with
    `lens`, events tell what each block would have said after them.
    `messages` are lines for the user about how the run differs from what was asked for. Raises BadInput,
    NotFound (no torch).

        tuning = Tuning(lm, "notes.txt", settings=TrainSettings(minutes=5))
        for event in tuning: print(event)
        lm.use_adapters([tuning.out])
    """

    def __init__(
        self,
        model: LM | NewModel,
        paths: Paths,
        out: str | PathLike[str] | None = None,
        settings: TrainSettings | None = None,
        data_options: DataOptions | None = None,
        *,
        prompts: Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
        should_stop: ShouldStop = lambda: None,
        progress: Callable[[DataProgress], object] | None = None,
        shard: bool = False,
        tensorboard: bool = False,
        lens: bool = False,
    ) -> None:
        require_torch()
        self.group = ProcessGroup.from_environment().join()
        self.should_stop, self._overwrite = should_stop, overwrite
        self.messages: list[str] = []
        self.later_messages: list[str] = []  # for the user once the run has begun
        self._earlier_seconds = 0.0  # used by earlier processes of a resumed run
        self._state: TrainerState | None = None  # from which to resume
        new_model = model if isinstance(model, NewModel) else None
        lm = model.lm if isinstance(model, NewModel) else model
        if lm.adapters:
            raise BadInput("the model has an adapter already: fold it in first (`pophood export`), then tune")
        files = tuple(Path(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths))
        wanted = settings or TrainSettings(method="full" if new_model else "lora")
        kind = "scratch" if new_model else wanted.method
        path = Path(fspath(out) if out is not None else default_out(files, kind))
        self.folder = RunFolder(path, self.group)
        if resume:
            chosen, options = self._resume(settings.minutes if settings else None, shard)
        else:
            chosen, options = self._settle(wanted, data_options or DataOptions(), lm, new_model, shard)
        data = read_data(lm, files, options, progress)
        self.folder.open_board(tensorboard, resume=resume)
        self._looked: set[int] = set()  # steps of which there is a lens
        self._lens = lens or (resume and self.group.on_rank_zero(self.folder.has_lens))
        self.setup = RunSetup(lm, new_model, files, path, chosen, options, data, (), self.group, shard)
        self.lm, self.data, self.out = lm, data, path
        self._check_same_everywhere()
        self.setup = replace(self.setup, prompts=self._prompts(prompts))
        self.plan: Plan | None = None
        self.before: Measures | None = None
        self.card: Card | None = None
        self._began = time.perf_counter()
        self._events = self._run()

    # ---- preparation ----

    def _settle(
        self,
        wanted: TrainSettings,
        options: DataOptions,
        lm: LM,
        new_model: NewModel | None,
        shard: bool,
    ) -> tuple[TrainSettings, DataOptions]:
        """Return the settings of a new run, and the data options with its length and, by default, seed."""
        settings = for_model(wanted, lm.config, from_scratch=new_model is not None, shard=shard)
        settings = for_device(with_cache_limit(settings, self.folder.path))
        self.folder.check_free(overwrite=self._overwrite)
        self.messages += length_messages(wanted, settings)
        seed = settings.seed if options.seed is None else options.seed
        return settings, replace(options, length=settings.length, seed=seed)

    def _resume(self, minutes: float | None, shard: bool) -> tuple[TrainSettings, DataOptions]:
        """Read the checkpoint, and return the settings of its run, with fresh minutes if given."""
        import_torch()
        from pophood.train.checkpoint.resume import environment_differences, settings_of

        tensors, facts = self.folder.checkpoint(self.messages.append)
        self._state = tensors, facts
        settings, options = settings_of(facts), self.folder.facts().data_options
        for_device(settings)  # raises if the device is not here
        if minutes is not None:
            settings = replace(settings, minutes=minutes, steps=None, epochs=None)
        else:
            self._earlier_seconds = float(facts["used_seconds"])
        self.messages += environment_differences(facts, shard=shard)
        return settings, options

    def _check_same_everywhere(self) -> None:
        """Raise BadInput if the processes of a run differ in model, data or settings."""
        setup = self.setup
        settings = replace(setup.settings, cache_limit=None)  # depends on each machine's disk
        self.group.check_same(data=setup.data_key, model=str(setup.lm.config), settings=str(settings))

    def _prompts(self, texts: Sequence[str]) -> tuple[SamplePrompt, ...]:
        """Return the prompts; a resumed run keeps its own, and must have the same model and data."""
        setup = self.setup
        if self._state is None:
            return tuple(prompts_of(setup.data, setup.lm.bundle, setup.template, texts))
        prompts = self.folder.facts().prompts
        self.folder.check_same(setup.base["name"], setup.data_key)
        return prompts

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Stop the run; its last checkpoint is kept."""
        self._events.close()  # type: ignore[attr-defined]

    @property
    def settings(self) -> TrainSettings:
        """The settings that the run has."""
        return self.setup.settings

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, including earlier processes of a resumed run."""
        return self._earlier_seconds + time.perf_counter() - self._began

    # ---- the parts of a run ----

    def calibrate(self) -> tuple[Trainer, Plan]:
        """Return the trainer and its plan, after measuring the model as it is. Writes nothing."""
        trainer, _, plan = last_value(self._calibrate())
        return trainer, plan

    def _calibrate(self) -> Generator[Event, None, Calibration]:
        if self._state is None:
            return (
                yield from calibrate(self.setup, self._new_trainer, lambda: self.seconds, self.should_stop)
            )
        facts = self.folder.facts()
        batch = self.settings.batch_size * self.settings.length
        trainer = self._trainer_of(facts.plan.validation_batches * batch)
        trainer.restore(*self._state)
        ratio = float(self._state[1].get("ratio", 1.0))
        resume_clock(trainer, facts.plan, ratio, lambda: self.seconds)
        return Calibration(trainer, facts.before, facts.plan)

    def _new_trainer(self) -> Trainer:
        trainer = self._trainer_of()
        self.later_messages = quantization_message(self.setup, trainer)
        return trainer

    def _trainer_of(self, positions: int = 0) -> Trainer:
        return make_trainer(self.setup, save=self._save, should_stop=self.should_stop, positions=positions)

    def _run(self) -> Iterator[Event]:
        trainer, before, plan = yield from self._calibrate()
        if self.group.any_reason(self.should_stop()) is not None:
            raise Cancelled(NOTHING_WRITTEN)
        self._trainer, self.before, self.plan = trainer, before, plan
        if self._state is None:
            self._begin_folder(plan)
        trainer.steps = trainer.steps or plan.steps
        if trainer.caches is not None:
            trainer.caches.open(self.out / FOLDER, several_epochs=plan.epochs > 1)
        trainer.settings = replace(trainer.settings, evaluations=plan.evaluations)
        memory = PeakMemory().start()
        reason = "stopped"
        try:
            for event in trainer.run():
                if isinstance(event, Finished):  # the run itself finishes when its result is written
                    reason = event.reason
                    continue
                yield from self._passed_on(event)
                while self.later_messages:
                    yield from self._passed_on(Noted(0, self.later_messages.pop(0)))
            yield from self._finish(reason, memory)
        finally:
            memory.stop()
            self.folder.close_board()
            if trainer.caches is not None:
                trainer.caches.close()
            if self.group.is_rank_zero:
                restore_engine(self.setup)

    def _begin_folder(self, plan: Plan) -> None:
        setup = self.setup
        facts = RunFacts(
            base=setup.base,
            from_scratch=setup.new_model.size if setup.new_model else None,
            paths=tuple(str(path.absolute()) for path in setup.paths),
            settings=asdict(setup.settings),
            data=setup.data_key,
            data_options=setup.options,
            format=setup.data.report.format,
            prompts=setup.prompts,
            before=self.before,
            plan=plan,
        )
        self.folder.begin(facts, overwrite=self._overwrite)
        if (new_model := setup.new_model) is not None:
            self.group.on_rank_zero(lambda: new_model.write(self.out))

    def _noted(self, event: Event) -> Event:
        """Write an event to the folder, and return it."""
        self.folder.note(event)
        return event

    def _passed_on(self, event: Event) -> Iterator[Event]:
        """Write an event to the folder and yield it; after an evaluation, what the prompts give."""
        yield self._noted(event)
        if isinstance(event, Evaluated):
            samples = event.step > 0 and self._has_time_for_samples
            lens = self._lens and (event.step == 0 or samples or self._has_time_for_a_lens)
            yield from self._read_prompts(event.step, *self.group.broadcast((lens, samples)))

    @property
    def _has_time_for_samples(self) -> bool:
        """Return whether there is time for samples before the last step; later ones belong to the report."""
        if self.settings.minutes is None:
            return True
        clock = self._trainer.clock
        ended = self._trainer.step >= self._trainer.steps
        return not self.settings.brief and not ended and (clock is None or clock.room > 0)

    @property
    def _has_time_for_a_lens(self) -> bool:
        """Return whether a run without samples can load what it has learned: an adapter takes little."""
        clock = self._trainer.clock
        ended = self._trainer.step >= self._trainer.steps
        return self.settings.method == "lora" and not ended and (clock is None or clock.room > 0)

    def _read_prompts(self, step: int, lens: bool, samples: bool) -> Iterator[Event]:
        """Let the engine read and continue the prompts with the present weights; torch is idle meanwhile."""
        if not (lens or samples):
            return
        if step:  # before, the engine has them
            with self._trainer.distributed.gathered():
                if self.group.is_rank_zero:
                    load_into_engine(self.setup, self._trainer.model)
        if not self.group.is_rank_zero:
            return
        prompts = self.setup.prompts
        if lens:
            self._looked.add(step)
            yield from map(self._noted, looks(self.lm, prompts, step))
        if samples:
            for prompt, text in zip(prompts, sample(self.lm, prompts, GLIMPSE), strict=True):
                yield self._noted(Sampled(step, prompt.text, text))

    def _save(self, state: TrainerState) -> str:
        """Write a checkpoint; a disk that is slower than planned will be slow for the result too."""
        tensors, facts = state
        begin = time.perf_counter()
        path = self.folder.save((tensors, {**facts, "used_seconds": self.seconds}))
        if self.plan is not None and self._trainer.clock is not None:
            beyond = time.perf_counter() - begin - self.plan.seconds_per_save
            self._trainer.clock.ending = self.plan.reserve + max(0.0, 2 * beyond)
        return path

    # ---- the end ----

    def _finish(self, reason: str, memory: PeakMemory) -> Iterator[Event]:
        trainer = self._trainer
        if trainer.step == 0:
            self._nothing_learned(reason)
        loss = trainer.loss
        if trainer.evaluated != trainer.step and (loss := trainer.validation_loss()) is not None:
            best = trainer.best is None or loss < trainer.best
            yield self._noted(Evaluated(trainer.step, loss, best))
        step = self._load_best_weights(loss)
        with trainer.distributed.gathered():
            changes = tuple(changes_of(self.setup, trainer.model)) if self.group.is_rank_zero else ()
            if self.group.broadcast(all(change.share < UNCHANGED for change in changes)):
                self._nothing_learned(reason)
            if self.group.is_rank_zero:
                yield from self._write(reason, step, memory, changes)
        finished = self._noted(Finished(trainer.step, reason, self.seconds))
        self.group.barrier()
        yield finished

    def _load_best_weights(self, loss: float | None) -> int:
        """Load the checkpoint of the lowest validation loss if it is below `loss`; return its step."""
        better = self.folder.better(self._trainer.step, loss)
        if better is None:
            return self._trainer.step
        tensors, facts = better
        self._trainer.load_weights(tensors)
        return int(facts["step"])

    def _write(
        self, reason: str, step: int, memory: PeakMemory, changes: tuple[Change, ...]
    ) -> Iterator[Event]:
        """Measure the trained model, and write it with its report; `step` is that of its weights."""
        trainer, setup = self._trainer, self.setup
        assert self.before is not None and self.plan is not None
        load_into_engine(setup, trainer.model)
        if self._lens and step not in self._looked:
            yield from map(self._noted, looks(self.lm, setup.prompts, step))
        seconds = self._seconds_to_measure(self.before, self.plan)
        after = last_value(measure(self.lm, self.data, setup.prompts, seconds, str, self.before))
        complete = reason in ("steps", "no better")
        if complete and trainer.caches is not None:
            trainer.caches.remove()
        write_result(setup, trainer.model)
        if complete:
            self.folder.remove_checkpoints()
        actual = Actual(trainer.step, self.seconds, memory.stop(), self.folder.bytes)
        events = self.folder.events()
        from pophood.train.report.page import write_report

        self.card = make_card(setup, events, self.plan, self.before, after, reason, step, actual, changes)
        write_report(self.folder, self.card)

    def _seconds_to_measure(self, before: Measures, plan: Plan) -> float | None:
        """Return the seconds left to measure, at least half of those spent before; None: no limit."""
        clock = self._trainer.clock
        return None if clock is None else max(before.seconds / 2, clock.seconds_left - plan.seconds_to_write)

    def _nothing_learned(self, reason: str) -> NoReturn:
        """End a run that left the weights as they were, and delete the folder unless it was resumed."""
        if self.group.is_rank_zero and self._state is None:
            self.folder.remove()
        raise nothing_learned(reason, self._trainer.step, self.seconds, self.settings.rate)
