"""The training loop: steps, evaluations and checkpoints as one stream of events. One step is `step.py`.

What the next step depends on is in `resumable_state.py`, so that a resumed run gives the same bits as one
that was never interrupted. A step that is broken off is done again from its start.

With several processes each runs this loop, and they agree on everything that decides what happens next.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from pophood.errors import BadInput, EngineError, OutOfMemory, PophoodError
from pophood.train.checkpoint.save_load import TrainerState
from pophood.train.data.dataset.packing import Batch, Batches
from pophood.train.distributed.process_group import LOCAL, ProcessGroup
from pophood.train.events import Evaluated, Event, Finished, Noted, Saved, Started, Step
from pophood.train.loop.activation_cache import ActivationCaches
from pophood.train.loop.clock import keep_if_close, schedule_position
from pophood.train.loop.optimizer import learning_rate
from pophood.train.loop.resumable_state import ResumableState
from pophood.train.loop.step import LossDiverged, evaluate, train_step
from pophood.train.model.buffer_pool import release_free_memory
from pophood.train.model.int8_linear import count_parameters
from pophood.train.model.loss import BatchTensors
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings

CUT_SHORT = 0.1  # the reason is "clock" if the clock ends a run with a larger share of its steps missing
LIMIT_FACTOR = 3.0  # the loss has diverged at this many times the loss of step 1, or of a uniform guess
NAMED_DOCUMENTS = 8  # in the message about a loss that has diverged


class ComputedStep(NamedTuple):
    """Step 1 with its gradients already computed: its batches, and the run's state after computing them."""

    batches: list[Batch]
    gradients: tuple[float, int]  # the result of `gradients_of`
    random: torch.Tensor
    place: tuple[int, int]  # epoch and index
    seconds: float


class Trainer(ResumableState):
    """Trains the parameters of `model` that require a gradient on `train`, and evaluates on `validation`.

    `run` yields events. `save` is called with the state when a checkpoint is due and returns its path.
    `should_stop` is asked between batches and returns why to stop, or None. In a `group` the batches of a
    step are dealt out to the processes, and rank 0 alone saves; with `shard` each process holds a part of
    every weight. A `clock` reconsiders the number of steps before every step; without one, `minutes` only
    cut a run short.
    """

    def __init__(
        self,
        model: Model,
        train: Batches,
        validation: Batches | None,
        settings: TrainSettings,
        *,
        save: Callable[[TrainerState], str] | None = None,
        should_stop: Callable[[], str | None] = lambda: None,
        group: ProcessGroup = LOCAL,
        shard: bool = False,
    ) -> None:
        super().__init__(model, settings, group, shard=shard)
        self.train, self.validation = train, validation
        self.save, self.should_stop = save, should_stop
        self.caches: ActivationCaches | None = None  # of the frozen blocks' hidden states
        self.computed_step: ComputedStep | None = None  # step 1, if it was computed to time it
        self.known_losses: tuple[float, int] | None = None  # of the first validation batch, before step 1
        self._cut = False  # whether the clock ended the run with much of the schedule missing
        torch.manual_seed(settings.seed + group.rank)
        model.train()

    def run(self) -> Iterator[Event]:
        """Train until the steps are done, the time is up, or a stop; yields events as they happen.

        Raises EngineError if the loss diverges and OutOfMemory if memory runs out. The step that raised has
        changed nothing, and the last checkpoint is whole.
        """
        try:
            for event in self._run():
                if not isinstance(event, Started):
                    yield from self._cache_messages()
                yield event
        except (MemoryError, RuntimeError) as error:
            signs = ("can't allocate memory", "out of memory")  # CPU; CUDA and MPS
            if isinstance(error, MemoryError) or any(sign in str(error) for sign in signs):
                raise OutOfMemory(
                    f"step {self.step + 1}: out of memory; the last checkpoint is whole: lower --batch-size"
                    " or --length, then continue with --resume"
                ) from error
            raise

    def _run(self) -> Iterator[Event]:
        begin = time.perf_counter() - self.seconds
        self.steps = self.steps or self.requested_steps() or 0
        if not self.steps:
            raise BadInput(
                "a run of minutes needs a number of steps to begin with: set `steps`, or plan the run"
            )
        settings = self.settings
        self.every = self.every or max(1, self.steps // settings.evaluations)
        tokens = settings.batch_size * settings.length * settings.accumulation * self.group.size
        trained = sum(parameter.numel() for parameter in self.trained.values())
        total = count_parameters(self.model)
        if self.group.size > 2 and not self.distributed.shard:
            self._fix_bucket_order()
        yield Started(self.step, self.steps, tokens, trained, total, settings.minutes)
        reason = "steps"
        try:
            while True:  # what is due after a step comes first: a resumed run may have stopped just before it
                self._replan()
                if self._evaluation_is_due():
                    yield from self._evaluate()
                    if self.step > 0:
                        yield from self._checkpoint()
                if settings.patience and self.worse >= settings.patience:
                    reason = "no better"
                    break
                if self.step >= self.steps:
                    reason = "clock" if self._cut else "steps"
                    break
                if (stop := self._why_stop(begin)) is not None:
                    reason = stop
                    break
                yield self._one_step(begin)
        except _Interrupted as interrupted:
            reason = str(interrupted)
        self.seconds = time.perf_counter() - begin
        yield from self._checkpoint()
        yield Finished(self.step, reason, self.seconds)

    def requested_steps(self) -> int | None:
        """Return the number of steps that the settings ask for; None if they ask for minutes."""
        settings = self.settings
        if settings.steps is not None or settings.minutes is not None:
            return settings.steps
        per_epoch = self.train.batches_per_epoch(0) / (settings.accumulation * self.group.size)
        return max(1, round((settings.epochs or 1.0) * per_epoch))

    def _fix_bucket_order(self) -> None:
        """Run one throw-away backward pass, after which DDP rebuilds its gradient buckets.

        Otherwise a resumed run would sum gradients in another order than the run that it continues.
        """
        random = torch.get_rng_state()
        batch = self.tensors(self.train.batch(0, 0))
        self.distributed.forward_backward(batch, 0.0, last=True)
        self.optimizer.zero_grad()
        torch.set_rng_state(random)

    def _replan(self) -> None:
        """Set the number of steps to as many as the clock has time for, but at least one."""
        if self.clock is None:
            return
        planned = self.steps - self.step
        fitting = keep_if_close(planned, self.clock.steps_left(self.step))
        left = self.group.broadcast(fitting) or int(self.step == 0)
        self._cut = planned > max(1, CUT_SHORT * self.steps) and not left
        if self.step and left != planned:
            done = schedule_position(self.step, self.steps, self.schedule_change) / self.steps
            self.schedule_change = self.step, min(1.0, done)
        self.steps = self.step + left

    def _evaluation_is_due(self) -> bool:
        if self.step in (self.evaluated, self.steps):
            return self.step != self.evaluated
        near = self.clock is not None and self.step and self.steps - self.step <= self.every // 2
        return self.step % self.every == 0 and not near

    def _why_stop(self, begin: float) -> str | None:
        seconds = math.inf if self.clock is not None else (self.settings.minutes or math.inf) * 60
        late = self.group.is_rank_zero and time.perf_counter() - begin > seconds
        return self.group.any_reason("clock" if late else self.should_stop())

    def _one_step(self, begin: float) -> Step:
        start, random, place = time.perf_counter(), torch.get_rng_state(), (self.epoch, self.index)
        computed, self.computed_step = self.computed_step, None
        if computed is not None:
            torch.set_rng_state(computed.random)
            (self.epoch, self.index), start = computed.place, start - computed.seconds
        batches = self.next_batches() if computed is None else computed.batches
        at = schedule_position(self.step, self.steps, self.schedule_change)
        rate = learning_rate(at, self.steps, self.settings)
        try:
            result = train_step(
                self.distributed,
                self.optimizer,
                [] if computed else [self.tensors(batch) for batch in batches],
                rate,
                self.settings.clip,
                interrupt=self._interrupt,
                limit=self._limit(),
                ready=computed.gradients if computed else None,
            )
        except LossDiverged as error:
            raise self.diverged(error, batches) from None
        except _Interrupted:
            torch.set_rng_state(random)
            self.epoch, self.index = place
            raise
        if self.first_loss is None:
            self.first_loss = result.loss
        self.step += 1
        now = time.perf_counter()
        self.seconds = now - begin
        if self.clock is not None:
            self.clock.record(self.step - 1, now - start)
        (tokens,) = self.group.sum(sum(batch.tokens.size for batch in batches))
        return Step(
            self.step,
            result.loss,
            result.gradient,
            rate,
            result.learned,
            tokens / (now - start),
            self.seconds,
            place[0],
            self.steps,
            self._seconds_left(now - start),
        )

    def _seconds_left(self, step: float) -> float:
        """Return the seconds that the rest of the run takes, if the last step took `step` seconds."""
        if self.clock is not None:
            return self.clock.seconds_left
        return (self.steps - self.step) * max(step, self.seconds / self.step)

    def _interrupt(self) -> None:
        late = self.clock is not None and self.group.is_rank_zero and self.step > 0 and self.clock.late
        if (reason := self.group.any_reason(self.should_stop() or ("clock" if late else None))) is not None:
            raise _Interrupted(reason)

    def _limit(self) -> float:
        return LIMIT_FACTOR * max(math.log(self.model.config.vocab_size), self.first_loss or math.inf)

    def diverged(self, error: LossDiverged, batches: Sequence[Batch]) -> PophoodError:
        """Return the error for a step whose loss diverged, naming the documents that it read."""
        chosen = batches if error.batch is None else [batches[error.batch]]
        sources = list(dict.fromkeys(source for batch in chosen for source in batch.sources))
        rest = len(sources) - NAMED_DOCUMENTS
        names = ", ".join(sources[:NAMED_DOCUMENTS]) + (f" and {rest:,} more" if rest > 0 else "")
        read = self.group.any_reason(names if error.here else None)
        return self.group.shared_error(
            EngineError(
                f"step {self.step + 1}: {error}; it read {read}; the last checkpoint is whole: lower"
                " --learning-rate, or look at these documents"
            )
        )

    def next_batches(self) -> list[Batch]:
        """Return this process's batches of the next step; the step's batches are dealt out in turn."""
        own = []
        for number in range(self.settings.accumulation * self.group.size):
            if self.index >= self.train.batches_per_epoch(self.epoch):
                self.epoch, self.index = self.epoch + 1, 0
            if number % self.group.size == self.group.rank:
                own.append(self.train.batch(self.epoch, self.index))
            self.index += 1
        return own

    def validation_loss(self) -> float | None:
        """Return the mean loss of the present weights on the validation batches; None without any."""
        if self.validation is None:
            return None
        return evaluate(self.distributed, self._own_validation_batches(self.validation))

    def _evaluate(self) -> Iterator[Event]:
        if self.validation is None:
            return
        known, self.known_losses = self.known_losses if self.step == 0 else None, None
        batches = self._own_validation_batches(self.validation, skip=known is not None)
        loss = evaluate(self.distributed, self._interruptible(batches), known or (0.0, 0))
        if not math.isfinite(loss):
            raise self.group.shared_error(
                EngineError(
                    f"step {self.step}: the validation loss is {loss:g}; the last checkpoint is whole: lower"
                    " --learning-rate"
                )
            )
        release_free_memory()  # batches differ in shape, and the gaps between their arrays add up
        better = self.best is None or loss < self.best
        self.best, self.worse = (loss, 0) if better else (self.best, self.worse + 1)
        self.evaluated, self.loss = self.step, loss
        yield Evaluated(self.step, loss, better)

    def _interruptible(self, batches: Iterator[BatchTensors]) -> Iterator[BatchTensors]:
        for batch in batches:
            if (reason := self.group.any_reason(self.should_stop())) is not None:
                raise _Interrupted(reason)
            yield batch

    def _own_validation_batches(self, validation: Batches, *, skip: bool = False) -> Iterator[BatchTensors]:
        """Yield this rank's validation batches, without the first if `skip`.

        Every rank gets the same number; those that run out get batches without targets.
        """
        count, size = validation.batches_per_epoch(0), self.group.size
        for index in range(self.group.rank + skip, -(-count // size) * size, size):
            batch = self.tensors(validation.batch(0, min(index, count - 1)), held_out=True)
            yield batch if index < count else batch.without_targets()

    def tensors(self, batch: Batch, *, held_out: bool = False) -> BatchTensors:
        """Return a training or `held_out` batch as tensors on the device, with its cached hidden states."""
        caches = self.caches
        cache = None if caches is None else caches.validation if held_out else caches.train
        tensors = BatchTensors.of(batch) if cache is None else cache.tensors(batch)
        return tensors if self.settings.device == "cpu" else tensors.to(self.settings.device)

    def _cache_messages(self) -> Iterator[Event]:
        while self.caches is not None and self.caches.messages:
            yield Noted(self.step, self.caches.messages.pop(0))

    def _checkpoint(self) -> Iterator[Event]:
        if self.save is not None and self.step != self.saved:
            self.saved = self.step
            save, state = self.save, self.state()
            yield Saved(self.step, self.group.on_rank_zero(lambda: save(state)))


class _Interrupted(Exception):
    """A stop was requested inside a step or an evaluation."""
