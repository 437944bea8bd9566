"""The plan of a run: memory, time and disk, from a few timed passes on this machine; minutes become steps.

What is predicted before step 1 is compared with what was measured at the end (`report.py`).
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pophood.config import ModelConfig
from pophood.errors import OutOfMemory
from pophood.system import available_memory, free_disk
from pophood.train.settings import TrainSettings
from pophood.train.world import ALONE, World

if TYPE_CHECKING:
    from pophood.train.loop import Trainer
    from pophood.train.tune import Tuning

KEPT = 2  # checkpoints on the disk
EVALUATING = 0.2  # largest share of the minutes that evaluations may take
SPARE = 0.02  # of the minutes, so that the clock is never overrun
WRITING = 2.0  # seconds to write a small result
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
    from pophood.train.precision import dtype_of

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
    if halves:  # norms and the feed-forward's inside are computed again (`between.recomputed`)
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


def schedule(trainer: Trainer, tuning: Tuning) -> Plan:
    """Calibrate, and settle the steps of the whole run before its first; a resumed run keeps its own."""
    settings = tuning.settings
    with PeakMemory() as peak:
        pace = pace_of(trainer)
    evaluation = evaluating_pace_of(trainer)
    parts = trainer.world.size if trainer.learner.shard else 1
    learned = sum(p.nbytes for p in trainer.trained.values())
    halves = any(p.element_size() == 2 for p in trainer.trained.values())
    moments = (2 * learned) // parts  # as wide as the weights, in bfloat16 too (`HalvesAdamW`)
    # The weights, two moments, and of masters in halves the lower half.
    checkpoint, result = (4 if halves else 3) * learned, _result(trainer, settings)
    measured = tuning.before.seconds if tuning.before is not None else 0.0
    states = trainer.trunks.bytes if trainer.trunks is not None else 0  # written on the way
    saving = checkpoint / DISK_RATE
    reserve = measured + evaluation.later + WRITING + saving + result / DISK_RATE
    evaluations = settings.evaluations
    if settings.minutes is not None:
        room = settings.minutes * 60 * (1 - SPARE) - tuning.seconds - reserve
        evaluations = max(1, min(evaluations, int(room * EVALUATING / max(evaluation.later, 1e-3))))
        glimpses = evaluations * measured * 0.25
        steps = pace.steps(room - evaluation.seconds(evaluations + 1) - evaluations * saving - glimpses)
    else:
        steps = trainer.plan_steps()
        glimpses = evaluations * measured * 0.25
    steps = trainer.steps or steps
    per_epoch = trainer.train.batches_per_epoch(0) / (settings.accumulation * trainer.world.size)
    learning = pace.seconds(steps)
    often = min(evaluations, steps)
    seconds = tuning.seconds + learning + evaluation.seconds(often + 1) + often * saving + glimpses + reserve
    memory = int((peak.bytes + moments) * GROWTH)
    free = available_memory() // trainer.world.local_size + peak.now
    folder = tuning.out.absolute().parent
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
        free_disk=free_disk(folder),
        advice=tuple(remedies(settings)) if memory > free else (),
    )


class Pace(NamedTuple):
    """Seconds of a step or an evaluation: of the `early` first ones, which compute a trunk's states, and of
    the others."""

    first: float
    later: float
    early: int

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        return min(steps, self.early) * self.first + max(steps - self.early, 0) * self.later

    def steps(self, seconds: float) -> int:
        """How many steps that suffices for, at least one.

        >>> Pace(first=2.0, later=1.0, early=10).steps(25.0)
        15
        """
        early = min(self.early, int(max(seconds, 0) / self.first)) if self.early else 0
        rest = seconds - self.early * self.first
        return max(1, early + int(rest / self.later) if early == self.early else early)


def pace_of(trainer: Trainer) -> Pace:
    """How fast steps are here and now."""
    step = trainer.seconds_per_step()
    if trainer.trunks is None:
        return Pace(step, step, 0)
    batch, accumulation = trainer.train.batch(0, 0), trainer.settings.accumulation
    begin = time.perf_counter()
    trainer.tensors(batch)
    states = trainer.world.share((time.perf_counter() - begin) * accumulation)
    early = math.ceil(trainer.train.batches_per_epoch(0) / (accumulation * trainer.world.size))
    return Pace(step + states, step + states * (1 - trainer.trunks.train.share), early)


def evaluating_pace_of(trainer: Trainer) -> Pace:
    """How fast evaluations are here and now, from one batch."""
    from pophood.train.step import evaluate

    if trainer.validation is None:
        return Pace(0.0, 0.0, 0)
    passes = math.ceil(trainer.validation.batches_per_epoch(0) / trainer.world.size)
    begin = time.perf_counter()
    tensors = trainer.tensors(trainer.validation.batch(0, 0), held=True)
    states = time.perf_counter() - begin
    evaluate(trainer.learner, [tensors])
    whole = time.perf_counter() - begin
    kept = (
        0.0
        if trainer.trunks is None or trainer.trunks.validation is None
        else trainer.trunks.validation.share
    )
    return Pace(whole * passes, (whole - kept * states) * passes, 1)


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
