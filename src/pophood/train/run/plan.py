"""The plan of a run: memory, time and disk, from a few timed passes on this machine; minutes become steps.

What is predicted before step 1 is compared with what was measured at the end (`report.py`).
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pophood.config import ModelConfig
from pophood.errors import OutOfMemory
from pophood.system import available_memory, free_disk
from pophood.train.distributed.process_group import ALONE, World
from pophood.train.run.clock import Clock, Pace
from pophood.train.settings import TrainSettings

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer
    from pophood.train.tune import Tuning

KEPT = 2  # checkpoints on the disk
EVALUATING, BRIEFLY = 0.1, 0.05  # shares of the minutes for what is on the way; of few minutes
VALIDATING, MOST_VALIDATING = 0.02, 0.04  # shares for one evaluation: usual, and largest for LEAST_VALIDATED
LEAST_VALIDATED = 2048  # positions
WRITING, WRITING_SHARE = 2.0, 0.04  # seconds to write a small result; a share of few minutes
GLIMPSES = 0.25  # of the time that measuring took, for samples on the way
GROWTH = 1.05  # of memory in a run: holes of the heap, programs of oneDNN (2 to 12 %, benchmarks/plans.py)
DISK_RATE = 400e6  # bytes per second of writing, assumed until a first checkpoint was written


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will take: bytes and seconds; `reserve` are the seconds kept for what comes after it."""

    steps: int
    epochs: float
    seconds_per_step: float
    seconds_per_evaluation: float
    seconds_per_save: float
    evaluations: int
    seconds: float  # of the whole run
    reserve: float
    memory: int  # peak of what this process holds, mapped files aside
    free_memory: int
    disk: int
    free_disk: int
    advice: tuple[str, ...]
    validation_batches: int = 0
    seconds_between: float = 0.0  # for evaluations, checkpoints and samples, shared out over all steps
    seconds_to_write: float = 0.0  # the result and its report

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return self.memory_missing <= 0 and self.disk <= self.free_disk

    @property
    def memory_missing(self) -> int:
        """Bytes of memory that are wanted beyond what is free."""
        return self.memory - self.free_memory

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"fits": self.fits, "advice": list(self.advice)}

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Plan:
        """From what `as_dict` gave."""
        facts = {name: value for name, value in said.items() if name != "fits"}
        return cls(**{**facts, "advice": tuple(said["advice"])})


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes that training takes beside the engine, before anything is allocated."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.moments + self.activations

    def on_a_machine(self, world: World, *, shard: bool) -> Sizes:
        """Of all processes of this machine; with `shard` gradients and moments are in parts."""
        n, parts = world.local_size, world.size if shard else 1
        learned = n * self.gradients // parts, n * self.moments // parts
        return Sizes(n * self.weights, *learned, n * self.activations)


def sizes_of(config: ModelConfig, settings: TrainSettings) -> Sizes:
    """A first estimate, from shapes alone: what a backward pass keeps, at 4 bytes a number or 2."""
    from pophood.train.model.precision import dtype_of

    halves = dtype_of(settings).itemsize == 2
    c, f, v = config.n_embd, config.n_inner, config.vocab_size
    kv = config.n_kv_head * config.head_dim
    blocks = settings.last_blocks if settings.method == "last" else config.n_layer
    trained = config.n_params
    if settings.method == "last":
        trained = blocks * (config.n_params - v * c) // config.n_layer
    elif settings.method == "lora":
        widths = 4 * c + 2 * (c + kv) + (3 if config.gated_mlp else 2) * (c + f)
        trained = config.n_layer * settings.lora.rank * widths
    kept = 7 * c + 4 * kv + (4 if config.gated_mlp else 3) * f  # of one token in one block
    if halves:  # norms and the feed-forward's inside are computed again (`ops.recompute_saved`)
        kept = 4 * c + 2 * kv + (2 if config.gated_mlp else 1) * f
    tokens = settings.batch_size * settings.length
    blocks_kept = 2 if settings.recompute else blocks
    activations = tokens * (kept * blocks_kept + c * config.n_layer + 4 * f) + 2**25  # and a chunk of logits
    if halves:  # a trained weight has its other half beside it; LoRA's own are float32
        lora = settings.method == "lora"
        weights = 2 * config.n_params + (0 if lora else 2 * trained)
        if settings.base == "q8":
            weights -= int((2 - 1.125) * (config.n_params - (1 if config.tied_output else 2) * v * c))
        return Sizes(weights, (4 if lora else 2) * trained, (8 if lora else 4) * trained, 2 * activations)
    weights = 4 * config.n_params
    if settings.base == "q8":  # 36 bytes for 32 numbers of the blocks' matrices
        weights -= int((4 - 1.125) * (config.n_params - (1 if config.tied_output else 2) * v * c))
    return Sizes(weights, 4 * trained, 8 * trained, 4 * activations)


def refuse_unfit(
    config: ModelConfig, settings: TrainSettings, world: World = ALONE, shard: bool = False
) -> None:
    """Raise OutOfMemory, with what to change, for a run that cannot fit; nothing is allocated yet."""
    if settings.device == "cuda":
        return  # which has a memory of its own
    needed, free = sizes_of(config, settings).on_a_machine(world, shard=shard), available_memory()
    if needed.total > free:
        raise OutOfMemory(
            f"training needs about {gib(needed.total)} more ({gib(needed.weights)} weights,"
            f" {gib(needed.gradients + needed.moments)} gradients and moments, {gib(needed.activations)}"
            f" activations); {gib(free)} is free: {'; '.join(remedies(settings))}"
        )


def remedies(settings: TrainSettings) -> list[str]:
    """What to change when memory is short, the cheapest first."""
    found = []
    if settings.batch_size > 1:
        half = settings.batch_size // 2
        found.append(f"--batch-size {half} --accumulation {settings.accumulation * 2} (the same learning)")
    if not settings.recompute:
        found.append("--recompute (a third slower)")
    if settings.method != "lora":
        found.append("--method lora (unless from scratch)")
    elif settings.base != "q8" and settings.device == "cpu":
        found.append("--base q8 (costs a little quality)")
    if settings.length > 64:
        found.append(f"--length {settings.length // 2}")
    return [*found, "a smaller model"]


def schedule(trainer: Trainer, tuning: Tuning, timed: Timed) -> Plan:
    """Settle the steps of the whole run before its first, from what was timed.

    With minutes, the trainer gets a clock that reconsiders them, and fewer batches to validate with where
    those of a plan without a clock would take too long.
    """
    from pophood.train.run.timing import plan_steps

    settings, world = tuning.settings, trainer.world
    parts = world.size if trainer.learner.shard else 1
    checkpoint, result = checkpoint_bytes(trainer), _result(trainer, settings)
    states = trainer.trunks.bytes if trainer.trunks is not None else 0  # written on the way
    saving = checkpoint / DISK_RATE
    measured = tuning.before.seconds if tuning.before is not None else 0.0
    glimpse = 0.0 if tuning.brief else measured * GLIMPSES
    total = None if settings.minutes is None else settings.minutes * 60
    if total is not None:
        tuning.fit_validation(trainer, world.share(batches_in(total, trainer, timed.evaluation.later)))
    batches = 0 if trainer.validation is None else trainer.validation.batches_per_epoch(0)
    passes = math.ceil(batches / world.size)
    evaluation = Pace(timed.evaluation.first * passes, timed.evaluation.later * passes, 1)
    writing = WRITING if total is None else min(WRITING, WRITING_SHARE * total)
    reserve = measured + evaluation.later + writing + saving + result / DISK_RATE
    evaluations, each = settings.evaluations, evaluation.later + saving + glimpse
    if total is not None:
        evaluations = min(
            evaluations, 1 + int((BRIEFLY if tuning.brief else EVALUATING) * total / max(each, 1e-3))
        )
        trainer.clock = Clock(total, lambda: tuning.seconds, timed.step, reserve, rough=timed.rough)
        trainer.clock.ending += evaluation.first + (evaluations - 1) * each  # still to come
        steps = max(1, trainer.clock.steps_left(0))
        trainer.clock.ending = reserve
        trainer.clock.between = (evaluations - 1) * each / steps
    else:
        steps = plan_steps(trainer)
    steps = trainer.steps or steps
    per_epoch = trainer.train.batches_per_epoch(0) / (settings.accumulation * world.size)
    learning, often = timed.step.seconds(steps), min(evaluations, steps)
    seconds = tuning.seconds + learning + evaluation.first + (often - 1) * each + reserve
    memory = int((timed.peak + moments_bytes(trainer) // parts) * GROWTH)
    free = available_memory() // world.local_size + timed.held
    return Plan(
        steps=steps,
        epochs=steps / per_epoch,
        seconds_per_step=learning / steps,
        seconds_per_evaluation=evaluation.later,
        seconds_per_save=saving,
        evaluations=evaluations,
        seconds=seconds,
        reserve=reserve,
        memory=memory,
        free_memory=free,
        disk=states + checkpoint * (KEPT + 1) + result,  # one more while it is written
        free_disk=free_disk(tuning.out.absolute().parent),
        advice=tuple(remedies(settings)) if memory > free else (),
        validation_batches=batches,
        seconds_to_write=writing,
        seconds_between=0.0 if trainer.clock is None else trainer.clock.between,
    )


class Timed(NamedTuple):
    """Timings of a trainer: seconds of a step, and of one batch that is evaluated; and bytes.

    `rough`: the step was the first one, whose time is longer than that of the others.
    """

    step: Pace
    evaluation: Pace
    peak: int  # of memory, while the step was timed
    held: int  # after it
    rough: bool


def time_step(trainer: Trainer, *, rough: bool, patience: float) -> tuple[Pace, PeakMemory]:
    """Time a step: `rough` is step 1 itself, otherwise a few passes for `patience` seconds."""
    from pophood.train.run.timing import begin_first_step, pace_of, seconds_per_step

    with PeakMemory() as peak:
        seconds = begin_first_step(trainer) if rough else seconds_per_step(trainer, patience)
        pace = pace_of(trainer, seconds)
    return pace, peak


def batches_in(total: float, trainer: Trainer, seconds: float) -> int:
    """How many batches are validated with in a run of `total` seconds, if one takes `seconds`."""
    if trainer.validation is None:
        return 0
    positions = trainer.settings.batch_size * trainer.settings.length
    least = min(max(1, LEAST_VALIDATED // positions), int(MOST_VALIDATING * total / max(seconds, 1e-6)))
    return max(1, least, int(VALIDATING * total / max(seconds, 1e-6)))


def moments_bytes(trainer: Trainer) -> int:
    """Bytes of AdamW's two moments, each as wide as the weights, in bfloat16 too (`SplitMasterAdamW`)."""
    return 2 * sum(p.nbytes for p in trainer.trained.values())


def checkpoint_bytes(trainer: Trainer) -> int:
    """Bytes of a checkpoint's tensors: what learns, its lower halves if it has some, and two moments."""
    learned = sum(p.nbytes for p in trainer.trained.values())
    low = sum(
        trainer.model.master_remainder[name].nbytes
        for name in trainer.trained
        if name in trainer.model.master_remainder
    )
    return learned + low + moments_bytes(trainer)


def _result(trainer: Trainer, settings: TrainSettings) -> int:
    """Bytes of what is written in the end, in float32 at most."""
    learned = settings.method == "lora"
    chosen = trainer.trained.values() if learned else trainer.model.parameters()
    return 4 * sum(parameter.numel() for parameter in chosen)


class PeakMemory:
    """Watches this process while a block runs: `bytes` is the peak of its anonymous memory, sampled.

    Elsewhere than on Linux it is the peak of all resident memory since the process began.
    """

    def __init__(self, every: float = 0.02) -> None:
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    @property
    def now(self) -> int:
        """What the process holds at this moment."""
        return _held()

    def start(self) -> PeakMemory:
        """Begin to watch."""
        self._thread.start()
        return self

    def __enter__(self) -> PeakMemory:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End the watch; the peak."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self.bytes = max(self.bytes, _held())
        return self.bytes

    def _watch(self) -> None:
        while not self._done.is_set():
            self.bytes = max(self.bytes, _held())
            self._done.wait(self._every)


def _held() -> int:
    if sys.platform == "win32":
        return 0  # not measured there
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    kinds = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kinds))


def gib(size: float) -> str:
    """Bytes for people.

    >>> gib(3 * 2**30), gib(5 * 2**20)
    ('3.00 GiB', '5 MiB')
    """
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{math.ceil(size / 2**20)} MiB"
