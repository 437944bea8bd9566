"""One run of fine-tuning, from a model and files to a folder with a result, as a stream of events.

    prepare (data) ─► before (samples, losses) ─► schedule (a timed step) ─► loop.Trainer ─► after ─► folder

A run of minutes keeps to them (`clock.py`): measuring, calibration, evaluations and the report have shares of
them, and less is measured where the machine is slow.

What is in the folder stands in `folder.py`, the report in `report.py`, the plan in `plan.py`. Torch is
imported when a run begins, not with this module. Nothing is printed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pophood.errors import BadInput, Cancelled, EngineError
from pophood.text.chat.chat_template import ChatTemplate
from pophood.train.data import Data, DataOptions, PackedSampler, open_data
from pophood.train.data.dataset.packing import SampledBatches
from pophood.train.defaults import for_model, shortened
from pophood.train.device import settled
from pophood.train.distributed.process_group import World
from pophood.train.distributed.shared_folder import folder_of
from pophood.train.events import Evaluated, Event, Finished, Noted, Sampled
from pophood.train.loop.chunk_store import FOLDER, with_limit
from pophood.train.model.build import TrainedWeights, adapter_of, build_model
from pophood.train.report.measures import Measures, measure
from pophood.train.report.report_card import Actual, Card, Change, changes_of, make_card, write_report
from pophood.train.report.samples import GLIMPSE, prompts_of, sample
from pophood.train.run.calibration import NOTHING_WRITTEN, calibrating, drained
from pophood.train.run.folder import State
from pophood.train.run.new_model import Scratch
from pophood.train.run.plan import PeakMemory, Plan
from pophood.train.settings import TrainSettings
from pophood.train.torch_install import require_torch

if TYPE_CHECKING:
    from pophood.model.lm import LM
    from pophood.train.data import Progress
    from pophood.train.loop.trainer import Trainer

SHORT = 3.0  # minutes: in less, no pass is wasted on timing, and there are no samples on the way
NOTHING = 2.0**-24  # a change below this share of a matrix is lost in the rounding of its own numbers
FULLY, BRIEFLY = 8192, 2048  # positions of validation batches
Paths = Sequence[str | PathLike[str]] | str | PathLike[str]
Stop = Callable[[], str | None]


class Tuning(Iterator[Event]):
    """One run: iterate over it for its events; `card` and `out` are there at its end, even if it was cut.

    Of a model from nothing (`from_scratch.Scratch`) everything learns. `should_stop` is asked between batches
    and answers why to stop ("stopped"), or None. `prompts` are the texts to sample from (None: the data's
    beginnings). Raises BadInput, NotFound (torch is missing).

        tuning = Tuning(lm, "notes.txt", settings=TrainSettings(minutes=5))
        for event in tuning: print(event)
        lm.use_adapters([tuning.out])
    """

    def __init__(
        self,
        lm: LM | Scratch,
        paths: Paths,
        out: str | PathLike[str] | None = None,
        settings: TrainSettings | None = None,
        data_options: DataOptions | None = None,
        *,
        prompts: Sequence[str] = (),
        resume: bool = False,
        overwrite: bool = False,
        should_stop: Stop = lambda: None,
        progress: Callable[[Progress], object] | None = None,
        shard: bool = False,
        tensorboard: bool = False,
    ) -> None:
        require_torch()
        self.world, self.shard = World.here().join(), shard
        self.scratch = lm if isinstance(lm, Scratch) else None
        lm = lm.lm if isinstance(lm, Scratch) else lm
        if lm.adapters:
            raise BadInput("the model has an adapter already: fold it in first (`pophood export`), then tune")
        self.lm, self.should_stop = lm, should_stop
        self.remarks: list[str] = []  # about resuming and what the model cannot do
        self._used = 0.0  # seconds, by earlier processes
        self.notes: list[str] = []  # to be said when the run begins
        self.paths = [Path(path) for path in ([paths] if isinstance(paths, (str, PathLike)) else paths)]
        wanted = settings or TrainSettings(method="full" if self.scratch else "lora")
        kind = "scratch" if self.scratch else wanted.method
        self.out = Path(fspath(out) if out is not None else default_out(self.paths, kind))
        self.folder = folder_of(self.out, self.world)
        self.resumed = self._resume(settings.minutes if settings else None) if resume else None
        if self.resumed is None:
            self.settings = for_model(wanted, lm.config, from_scratch=self.scratch is not None, shard=shard)
            self.settings = settled(with_limit(self.settings, self.out))
            self.folder.check_free(overwrite=overwrite)
            self.options = self._reading(data_options or DataOptions(), wanted)
        self.data: Data = open_data(self.paths, lm.bundle.tokenizer, lm.chat_template, self.options, progress)
        if not self.data.report.trained_tokens:
            raise BadInput(
                f"in rows of {self.settings.length:,} positions nothing of the data is learned: answers lie"
                " beyond; raise --length, or take a model with more positions"
            )
        self.folder.open_board(tensorboard, resume=resume)
        self.folder.check_alike(self)
        template = lm.chat_template
        if template is None and self.data.template is not None:
            template = ChatTemplate(self.data.template, names=lm.bundle.tokenizer.names)
        self.template = template
        if self.resumed is None:
            self.prompts = prompts_of(self.data, lm.bundle, template, prompts)
        else:
            self.prompts = self.folder.prompts()
            self.folder.check_same(self)
        self.plan: Plan | None = None
        self.before: Measures | None = None
        self.card: Card | None = None
        self._overwrite = overwrite
        self._began = time.perf_counter()
        self._events = self._run()

    def _reading(self, options: DataOptions, wanted: TrainSettings) -> DataOptions:
        """How the data is read: in rows of the run's length, split by its seed unless options name one."""
        self.remarks += shortened(wanted, self.settings)
        seed = self.settings.seed if options.seed is None else options.seed
        return replace(options, length=self.settings.length, seed=seed)

    def _resume(self, minutes: float | None) -> State:
        """The checkpoint to go on from; the run's settings are its own, but for fresh minutes."""
        from pophood.train.checkpoint.resume import remarks, settings_of

        tensors, facts = self.folder.checkpoint(self.remarks.append)
        self.settings, self.options = settings_of(facts), self.folder.data_options()
        settled(self.settings)  # the device may not be here
        if minutes is not None:
            self.settings = replace(self.settings, minutes=minutes, steps=None, epochs=None)
        else:
            self._used = float(facts["used_seconds"])
        self.remarks += remarks(facts, shard=self.shard)
        return tensors, facts

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Stop here; the last checkpoint stands."""
        self._events.close()  # type: ignore[attr-defined]

    # ---- the parts of a run ----

    def trainer(self, positions: int = 0) -> Trainer:
        """The trainer of this run, at its beginning or where it was left; `positions`: to validate with."""
        import torch

        from pophood.train.loop.activation_cache import Trunks
        from pophood.train.loop.quantization_loss import quantization_report
        from pophood.train.loop.trainer import Trainer

        torch.set_num_threads(self.world.threads(self.lm.engine.threads))
        settings = self.settings
        order = PackedSampler(self.data.train, settings.batch_size, settings.length, settings.seed)
        held: SampledBatches | None = None
        if len(self.data.validation):
            held = self._held(positions or self.validated)
        model = build_model(self.lm.bundle, settings)
        if settings.base == "q8" and self.resumed is None:
            shown = self._held(1) if held and self.brief else held  # of one batch where there is little time
            self.notes = [quantization_report(model, self.lm.bundle.weights, shown or order)]
        trainer = Trainer(
            model,
            order,
            held,
            settings,
            save=self._save,
            should_stop=self.should_stop,
            world=self.world,
            shard=self.shard,
        )
        if self.world.alone:  # or the others would have to be told what it has computed
            trainer.trunks = Trunks.of(model, order, held, settings)
        if self.resumed is not None:
            trainer.restore(*self.resumed)
        return trainer

    def calibrate(self) -> tuple[Trainer, Plan]:
        """The trainer and its plan; measures the model as it is. Writes nothing."""
        return drained(calibrating(self))

    def _run(self) -> Iterator[Event]:
        trainer, plan = yield from calibrating(self)
        if self.world.agree(self.should_stop()) is not None:
            raise Cancelled(NOTHING_WRITTEN)
        self._trainer, self.plan = trainer, plan
        if self.resumed is None:
            self.folder.begin(self, overwrite=self._overwrite)
        trainer.steps = trainer.steps or plan.steps
        if trainer.trunks is not None:
            trainer.trunks.open(self.out / FOLDER, again=plan.epochs > 1)
        trainer.settings = replace(trainer.settings, evaluations=plan.evaluations)
        watch = PeakMemory().start()
        reason = "stopped"
        try:
            for event in trainer.run():
                reason = event.reason if isinstance(event, Finished) else reason
                yield from self._seen(event)
                while self.notes:
                    yield from self._seen(Noted(0, self.notes.pop(0)))
            yield from self._finish(trainer, reason, watch)
        finally:
            watch.stop()
            self.folder.close_board()
            if trainer.trunks is not None:
                trainer.trunks.close()
            self._restore_engine()

    def _seen(self, event: Event) -> Iterator[Event]:
        if isinstance(event, Finished):
            return  # said when the result is written
        self.folder.note(event)
        yield event
        if isinstance(event, Evaluated) and event.step and self.world.share(self._may_glimpse):
            yield from self._glimpses(event.step)

    def _glimpses(self, step: int) -> Iterator[Event]:
        """What the model makes of the prompts now; the engine computes, torch is idle."""
        with self._trainer.learner.together():
            self._into_engine()
        if not self.world.first:
            return
        for prompt, text in zip(self.prompts, sample(self.lm, self.prompts, GLIMPSE), strict=True):
            event = Sampled(step, prompt.text, text)
            self.folder.note(event)
            yield event

    def _finish(self, trainer: Trainer, reason: str, watch: PeakMemory) -> Iterator[Event]:
        if trainer.step == 0:
            self._nothing_learned(reason)
        loss = trainer.loss
        if trainer.evaluated != trainer.step and (loss := trainer.validation_loss()) is not None:
            last = Evaluated(trainer.step, loss, trainer.best is None or loss < trainer.best)
            self.folder.note(last)
            yield last
        chosen = self.folder.use_best(trainer, loss)
        with trainer.learner.together():
            changes = tuple(changes_of(self, trainer)) if self.world.first else ()
            if self.world.share(all(change.share < NOTHING for change in changes)):
                self._nothing_learned(reason)
            if self.world.first:
                self._write(trainer, reason, chosen, watch, changes)
        finished = Finished(trainer.step, reason, self.seconds)
        self.folder.note(finished)
        self.world.wait()
        yield finished

    def _write(
        self, trainer: Trainer, reason: str, chosen: int, watch: PeakMemory, changes: tuple[Change, ...]
    ) -> None:
        """Measure what was learned, and write it with its report."""
        self._into_engine()
        after = drained(measure(self.lm, self.data, self.prompts, self._seconds_to_measure, self.before))
        complete = reason in ("steps", "no better")
        if complete and trainer.trunks is not None:
            trainer.trunks.remove()
        self.folder.finish(self, trainer, complete=complete)
        actual = Actual(trainer.step, self.seconds, watch.stop(), self.folder.bytes)
        self.card = make_card(self, after, reason, chosen, actual, changes)
        write_report(self.folder, self.card)

    # ---- between torch and the engine ----

    def _into_engine(self) -> None:
        """Let rank 0's engine compute with what has been learned so far."""
        from pophood.train.model.buffer_pool import release_free_memory

        if not self.world.first:
            return
        model = self._trainer.model
        if self.settings.method == "lora":
            adapter = adapter_of(model, self.settings, self.out.name, self.base)
            self.lm.engine.use_adapters([*self.lm.adapters, (adapter, 1.0)])
        else:
            self.lm.engine.load(TrainedWeights(self.lm.bundle, model))
        release_free_memory()  # what the engine had before

    def _restore_engine(self) -> None:
        if not self.world.first:
            return
        if self.settings.method == "lora":
            self.lm.engine.use_adapters(self.lm.adapters)
        else:
            self.lm.engine.load(self.lm.bundle.weights)

    @property
    def base(self) -> dict[str, str]:
        """The model that is tuned, in words that find it again."""
        here = Path(self.lm.name)
        name = str(here.absolute()) if here.exists() else self.lm.name
        return {"name": name, "architecture": self.lm.config.architecture}

    # ---- the clock and the disk ----

    @property
    def brief(self) -> bool:
        """Whether there is so little time that less is measured."""
        return self.settings.minutes is not None and self.settings.minutes < SHORT

    @property
    def seconds(self) -> float:
        """Of this run, with those before it was resumed."""
        return self._used + time.perf_counter() - self._began

    @property
    def _seconds_to_measure(self) -> float | None:
        """Seconds for measuring what was learned: those that are left, and half of those before at least."""
        clock = self._trainer.clock
        if clock is None or self.plan is None or self.before is None:
            return None
        return max(self.before.seconds / 2, clock.left - self.plan.seconds_to_write)

    @property
    def validated(self) -> int:
        """Positions to validate with at most, before anything was timed."""
        return BRIEFLY if self.brief else FULLY

    def fit_validation(self, trainer: Trainer, most: int) -> None:
        """Validate with fewer batches where the clock has no time for all: `most`, spread evenly.

        What a trunk keeps is of batches that are settled already.
        """
        if trainer.validation is None or trainer.trunks is not None:
            return
        if most < trainer.validation.batches_per_epoch(0):
            trainer.validation = self._held(most * self.settings.batch_size * self.settings.length)

    def _held(self, positions: int) -> SampledBatches:
        settings = self.settings
        order = PackedSampler(
            self.data.validation, settings.batch_size, settings.length, settings.seed, shuffle=False
        )
        return SampledBatches(order, positions)

    @property
    def _may_glimpse(self) -> bool:
        """Whether there is time for samples on the way; those after the last step come with the report."""
        if self.settings.minutes is None:
            return True
        clock = self._trainer.clock
        ended = self._trainer.step >= self._trainer.steps
        return not self.brief and not ended and (clock is None or clock.room > 0)

    def _nothing_learned(self, reason: str) -> NoReturn:
        """End a run whose weights are those that it began with: nothing of it is worth a folder."""
        if self.world.first and self.resumed is None:
            self.folder.close_board()
            shutil.rmtree(self.out, ignore_errors=True)
        steps = self._trainer.step
        if reason == "stopped":
            raise Cancelled(f"stopped after {steps} steps: nothing was learned, and nothing is written")
        if not steps:
            raise EngineError(
                f"no step was made in {self.seconds:.0f} s, so nothing was learned and nothing is written:"
                " give more --minutes, or make a step smaller (--batch-size, --accumulation, --length)"
            )
        raise EngineError(
            f"nothing was learned in {steps:,} steps, and nothing is written: no matrix has changed by more"
            f" than its rounding: raise --learning-rate ({self.settings.rate:g} now), or see --show"
        )

    def _save(self, state: State) -> str:
        tensors, facts = state
        begin = time.perf_counter()
        place = self.folder.save((tensors, {**facts, "used_seconds": self.seconds}))
        if self.plan is not None:  # a slower disk than was assumed is slow for the result too
            beyond = time.perf_counter() - begin - self.plan.seconds_per_save
            if self._trainer.clock is not None:
                self._trainer.clock.ending = self.plan.reserve + max(0.0, 2 * beyond)
        return place


def default_out(paths: Sequence[Path], kind: str) -> str:
    """`./notes-lora` for notes.txt; `kind` is the method, or "scratch"."""
    stem = paths[0].absolute().stem if paths else "tuned"
    return f"{stem or 'tuned'}-{kind}"
