"""The training loop: steps, evaluations and checkpoints as one stream of events. One step is `step.py`.

Between two steps the whole state is `Trainer.state()`: what is trained, the optimizer's moments, the random
state, and where in the data the next batch lies. A run that is resumed from it gives the bits of one that was
never interrupted, because a step reads nothing else; a step that is broken off is done again from its start.

Of several processes (`world.py`) each runs this loop, and what it decides by is agreed on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch

from pophood.errors import EngineError, OutOfMemory, PophoodError
from pophood.train.checkpoint.resume import check_state
from pophood.train.data.dataset.batch import Batch
from pophood.train.distributed.process_group import ALONE, World
from pophood.train.distributed.sharding import Learner
from pophood.train.events import Evaluated, Event, Finished, Noted, Saved, Started, Step
from pophood.train.loop.activation_cache import Trunks
from pophood.train.loop.optimizer import learning_rate, make_optimizer
from pophood.train.loop.step import Exploded, Tensors, evaluate, train_step
from pophood.train.model.buffer_pool import release_free_memory
from pophood.train.model.int8_linear import count_parameters
from pophood.train.model.transformer import Model
from pophood.train.run.clock import STRAIGHT, Clock, position, steady
from pophood.train.run.timing import Begun, plan_steps
from pophood.train.settings import TrainSettings

Facts = dict[str, Any]
State = tuple[dict[str, torch.Tensor], Facts]
STEEP = 0.1  # of the steps: more than this lacking, a schedule was cut short
TOO_MUCH = 3.0  # a loss this many times that of a guess, or of the first step, has exploded
PLACE = ("step", "epoch", "index", "steps", "best", "worse", "evaluated", "first_loss", "seconds")
LATER = {"every": 0, "turn": (0, 0.0), "ratio": 1.0}  # which older checkpoints do not have


class Batches(Protocol):
    """A source of batches, such as `data.PackedSampler`; an (epoch, index) always gives the same batch."""

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch of rows."""

    def batches_per_epoch(self, epoch: int) -> int:
        """How many there are."""


class Trainer:
    """Teaches `model` with `train`, watching `validation`; what is trained is what requires a gradient.

    `run` yields events; `save` is called with the state when a checkpoint is due and returns where it went;
    `should_stop` is asked between batches and answers why to stop, or None. In a `world` a step's batches are
    dealt out to its processes, and rank 0 alone saves; with `shard` each holds a part of every weight.
    With a `clock` the number of steps is reconsidered before every step; without, minutes cut a run short.
    """

    def __init__(
        self,
        model: Model,
        train: Batches,
        validation: Batches | None,
        settings: TrainSettings,
        *,
        save: Callable[[State], str] | None = None,
        should_stop: Callable[[], str | None] = lambda: None,
        world: World = ALONE,
        shard: bool = False,
    ) -> None:
        self.world, self.learner = world, Learner(model, world, shard=shard)
        self.model, self.train, self.validation, self.settings = model, train, validation, settings
        self.save, self.should_stop = save, should_stop
        self.trunks: Trunks | None = None  # states that need not be computed again, if somebody keeps them
        self.optimizer = make_optimizer(model, settings)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.step = self.epoch = self.index = 0
        self.steps, self.turn = 0, STRAIGHT  # of the whole run; planned before step 1
        self.every = 0  # steps from one evaluation to the next; planned before step 1 and kept
        self.clock: Clock | None = None
        self.begun: Begun | None = None  # step 1, if its gradients are there already
        self.known: tuple[float, int] | None = None  # losses of the first validation batch before step 1
        self.best: float | None = None
        self.worse = 0  # evaluations since the best one
        self.evaluated = -1  # the step of the last evaluation
        self.loss: float | None = None  # what it gave
        self.first_loss: float | None = None  # of step 1
        self.seconds = 0.0  # of training, in earlier processes too
        torch.manual_seed(settings.seed + world.rank)
        model.train()

    # ---- state: all that the next step depends on ----

    def state(self) -> State:
        """The tensors and facts that a later process needs to go on from here; of shards, whole on rank 0."""
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.trained.items():
            tensors[f"trained.{name}"] = parameter.detach()
            if name in self.model.master_remainder:
                tensors[f"low.{name}"] = self.model.master_remainder[name]
            moments = self.optimizer.state.get(parameter)
            if moments:
                tensors[f"mean.{name}"] = moments["exp_avg"]
                tensors[f"square.{name}"] = moments["exp_avg_sq"]
        facts: Facts = {name: getattr(self, name) for name in PLACE}
        ratio = self.clock.ratio if self.clock is not None else 1.0
        facts |= {
            "every": self.every,
            "turn": list(self.turn),
            "ratio": ratio,
            "validation_loss": self.loss if self.evaluated == self.step else None,
            "settings": asdict(self.settings),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "shard": self.learner.shard,
        }
        random = self.world.gather(torch.get_rng_state())
        states = {f"random.{rank}" if rank else "random": state for rank, state in enumerate(random)}
        whole = self.learner.whole(tensors)
        return {**states, **{name: tensor.cpu() for name, tensor in whole.items()}}, facts

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises BadInput when it is of another model or method."""
        check_state(self, tensors, {*PLACE, "validation_loss"}, facts)
        self.put(tensors)
        for name, parameter in self.trained.items():
            if f"mean.{name}" in tensors:
                mean, square = (
                    tensors[f"{kind}.{name}"].to(parameter.device, copy=True) for kind in ("mean", "square")
                )
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(facts["step"]), device=parameter.device),
                    "exp_avg": self.learner.part(parameter, mean),
                    "exp_avg_sq": self.learner.part(parameter, square),
                }
        for name in PLACE:
            setattr(self, name, facts[name])
        later = {**LATER, **facts}
        self.every, self.turn = later["every"], (later["turn"][0], later["turn"][1])
        if self.clock is not None:
            self.clock.ratio, self.clock.rough = later["ratio"], False
        self.loss, self._saved = facts["validation_loss"], self.step
        for rank in range(self.world.size):
            name = f"random.{rank}" if rank else "random"
            random = tensors.get(name)
            if rank == self.world.rank:
                _set_random(random, self.settings.seed + rank + self.step * self.world.size)

    @torch.no_grad()
    def put(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Let the weights be those of a saved state."""
        for name, parameter in self.trained.items():
            parameter.copy_(self.learner.part(parameter, tensors[f"trained.{name}"]))
            if name in self.model.master_remainder:
                self.model.master_remainder[name].copy_(tensors[f"low.{name}"])

    # ---- the run ----

    def run(self) -> Iterator[Event]:
        """Train to the end of the plan, the clock, or a stop; yields events as they happen.

        Raises EngineError when the loss explodes, OutOfMemory when there is none left: nothing of that step
        is kept, the last checkpoint stands.
        """
        try:
            for event in self._run():
                if not isinstance(event, Started):
                    yield from self._notes()
                yield event
        except (MemoryError, RuntimeError) as error:
            full = ("can't allocate memory", "out of memory")  # of the processor, of CUDA and MPS
            if isinstance(error, MemoryError) or any(words in str(error) for words in full):
                raise OutOfMemory(
                    f"step {self.step + 1}: the memory is used up; the last checkpoint is whole: lower"
                    " --batch-size or --length, then go on with --resume"
                ) from error
            raise

    def _run(self) -> Iterator[Event]:
        begin = time.perf_counter() - self.seconds
        if not self.steps:
            self.steps = plan_steps(self)
        settings = self.settings
        self.every = self.every or max(1, self.steps // settings.evaluations)
        tokens = settings.batch_size * settings.length * settings.accumulation * self.world.size
        trained = sum(parameter.numel() for parameter in self.trained.values())
        total = count_parameters(self.model)
        if self.world.size > 2 and not self.learner.shard:
            self._settle()
        yield Started(self.step, self.steps, tokens, trained, total, settings.minutes)
        reason = "steps"
        try:
            while True:  # what is due after a step comes first: a run may have been stopped just before it
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
        except _Broken as broken:
            reason = str(broken)
        self.seconds = time.perf_counter() - begin
        yield from self._checkpoint()
        yield Finished(self.step, reason, self.seconds)

    def _settle(self) -> None:
        """DDP orders its messages anew after the first backward pass: let that not be one which is kept, or
        the sums of a resumed run would have another order."""
        random = torch.get_rng_state()
        self.learner.learn(self.tensors(self.train.batch(0, 0)), 0.0, last=True)
        self.optimizer.zero_grad()
        torch.set_rng_state(random)

    def _replan(self) -> None:
        """Let the run have as many steps as the clock has time for, and at least one."""
        if self.clock is None:
            return
        planned = self.steps - self.step
        left = self.world.share(steady(planned, self.clock.steps_left(self.step))) or int(self.step == 0)
        self._cut = planned > max(1, STEEP * self.steps) and not left
        if self.step and left != planned:
            self.turn = self.step, min(1.0, position(self.step, self.steps, self.turn) / self.steps)
        self.steps = self.step + left

    def _evaluation_is_due(self) -> bool:
        if self.step in (self.evaluated, self.steps):
            return self.step != self.evaluated
        near = self.clock is not None and self.step and self.steps - self.step <= self.every // 2
        return self.step % self.every == 0 and not near

    def _why_stop(self, begin: float) -> str | None:
        seconds = math.inf if self.clock is not None else (self.settings.minutes or math.inf) * 60
        late = self.world.first and time.perf_counter() - begin > seconds
        return self.world.agree("clock" if late else self.should_stop())

    def _one_step(self, begin: float) -> Step:
        start, random, place = time.perf_counter(), torch.get_rng_state(), (self.epoch, self.index)
        begun, self.begun = self.begun, None
        if begun is not None:
            torch.set_rng_state(begun.random)
            (self.epoch, self.index), start = begun.place, start - begun.seconds
        batches = self.next_batches() if begun is None else begun.batches
        rate = learning_rate(position(self.step, self.steps, self.turn), self.steps, self.settings)
        try:
            result = train_step(
                self.learner,
                self.optimizer,
                [] if begun else [self.tensors(batch) for batch in batches],
                rate,
                self.settings.clip,
                interrupt=self._interrupt,
                limit=self._limit(),
                begun=begun.gradients if begun else None,
            )
        except Exploded as error:
            raise self.exploded(error, batches) from None
        except _Broken:
            torch.set_rng_state(random)
            self.epoch, self.index = place
            raise
        if self.first_loss is None:
            self.first_loss = result.loss
        self.step += 1
        now = time.perf_counter()
        self.seconds = now - begin
        if self.clock is not None:
            self.clock.saw(self.step - 1, now - start)
        (tokens,) = self.world.sum(sum(batch.tokens.size for batch in batches))
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
            self._left(now - start),
        )

    def _left(self, step: float) -> float:
        """Seconds that the run still takes, of which its last step took some."""
        if self.clock is not None:
            return self.clock.left
        return (self.steps - self.step) * max(step, self.seconds / self.step)

    def _interrupt(self) -> None:
        late = self.clock is not None and self.world.first and self.step > 0 and self.clock.late
        if (reason := self.world.agree(self.should_stop() or ("clock" if late else None))) is not None:
            raise _Broken(reason)

    def _limit(self) -> float:
        return TOO_MUCH * max(math.log(self.model.config.vocab_size), self.first_loss or math.inf)

    def exploded(self, error: Exploded, batches: Sequence[Batch]) -> PophoodError:
        """The error of a step that exploded, with the documents that it read."""
        chosen = batches if error.batch is None else [batches[error.batch]]
        sources = list(dict.fromkeys(source for batch in chosen for source in batch.sources))
        more = f" and {len(sources) - 8:,} more" if len(sources) > 8 else ""
        read = self.world.agree(f"{', '.join(sources[:8])}{more}" if error.here else None)
        return self.world.error(
            EngineError(
                f"step {self.step + 1}: {error}; it read {read}; the last checkpoint is whole: lower"
                " --learning-rate, or look at these documents"
            )
        )

    def next_batches(self) -> list[Batch]:
        """Of the batches of a step, which are dealt out in turn, those of this process."""
        mine = []
        for number in range(self.settings.accumulation * self.world.size):
            if self.index >= self.train.batches_per_epoch(self.epoch):
                self.epoch, self.index = self.epoch + 1, 0
            if number % self.world.size == self.world.rank:
                mine.append(self.train.batch(self.epoch, self.index))
            self.index += 1
        return mine

    def validation_loss(self) -> float | None:
        """The mean loss of what is learned so far on the validation batches, if there are any."""
        return None if self.validation is None else evaluate(self.learner, self._shares(self.validation))

    def _evaluate(self) -> Iterator[Event]:
        if self.validation is None:
            return
        known, self.known = self.known if self.step == 0 else None, None
        batches = self._shares(self.validation, skip=known is not None)
        loss = evaluate(self.learner, self._asking(batches), known or (0.0, 0))
        if not math.isfinite(loss):
            raise self.world.error(
                EngineError(
                    f"step {self.step}: the validation loss is {loss:g}; the last checkpoint is whole: lower"
                    " --learning-rate"
                )
            )
        release_free_memory()  # batches differ in shape, and what lies between their arrays adds up
        better = self.best is None or loss < self.best
        self.best, self.worse = (loss, 0) if better else (self.best, self.worse + 1)
        self.evaluated, self.loss = self.step, loss
        yield Evaluated(self.step, loss, better)

    def _asking(self, batches: Iterator[Tensors]) -> Iterator[Tensors]:
        for batch in batches:
            if (reason := self.world.agree(self.should_stop())) is not None:
                raise _Broken(reason)
            yield batch

    def _shares(self, validation: Batches, *, skip: bool = False) -> Iterator[Tensors]:
        """The batches of this process to validate with, and as many from every process; with `skip`
        all but the first."""
        count, size = validation.batches_per_epoch(0), self.world.size
        for index in range(self.world.rank + skip, -(-count // size) * size, size):
            batch = self.tensors(validation.batch(0, min(index, count - 1)), held=True)
            yield batch if index < count else batch.unlearned()

    def tensors(self, batch: Batch, *, held: bool = False) -> Tensors:
        """A batch as torch wants it, `held` one of validation; with its states where the trunk has them."""
        kept = self.trunks
        trunk = None if kept is None else kept.validation if held else kept.train
        tensors = Tensors.of(batch) if trunk is None else trunk.tensors(batch)
        return tensors if self.settings.device == "cpu" else tensors.to(self.settings.device)

    def _notes(self) -> Iterator[Event]:
        while self.trunks is not None and self.trunks.remarks:
            yield Noted(self.step, self.trunks.remarks.pop(0))

    def _checkpoint(self) -> Iterator[Event]:
        if self.save is not None and self.step != self._saved:
            self._saved = self.step
            save, state = self.save, self.state()
            yield Saved(self.step, self.world.by_first(lambda: save(state)))

    _saved = -1
    _cut = False  # by the clock, with a good part of the schedule still to come


class _Broken(Exception):
    """A stop was asked for inside a step."""


def _set_random(state: torch.Tensor | None, seed: int) -> None:
    """Go on with a random state, or with a seed where there were fewer processes before."""
    if state is None:
        torch.manual_seed(seed)
    else:
        torch.set_rng_state(state)
