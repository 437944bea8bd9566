"""The plan of a run: steps, time, memory and disk, from a few timed passes on this machine.

The report compares the plan with the actual costs.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pophood.config import ModelConfig
from pophood.errors import OutOfMemory
from pophood.system import available_memory, free_disk, memory_text
from pophood.train.distributed.process_group import LOCAL, ProcessGroup
from pophood.train.loop.clock import Clock, Pace
from pophood.train.settings import TrainSettings

if TYPE_CHECKING:
    from pophood.train.loop.trainer import Trainer

CHECKPOINTS = 2  # kept on disk
ON_THE_WAY, BRIEF_ON_THE_WAY = 0.1, 0.05  # shares of the minutes for evaluations, checkpoints and samples
# Shares of the minutes for one evaluation: the usual one, and the largest, to reach the next number.
EVALUATION, LARGEST_EVALUATION = 0.02, 0.04
FEWEST_POSITIONS = 2048  # of an evaluation, if the larger share allows it
WRITING, WRITING_SHARE = 2.0, 0.04  # seconds for writing a small result; at most this share of the minutes
SAMPLING = 0.25  # time of the samples after one evaluation, relative to measuring the model before the run
GROWTH = 1.05  # of memory during a run: holes in the heap, oneDNN's kernels (2 to 12 %, benchmarks/plans.py)
DISK_RATE = 400e6  # bytes per second, assumed until the first checkpoint is written


@dataclass(frozen=True, slots=True)
class Plan:
    """The expected steps, seconds and bytes of a run."""

    steps: int
    epochs: float
    seconds_per_step: float
    seconds_per_evaluation: float
    seconds_per_save: float
    evaluations: int
    seconds: float  # of the whole run
    reserve: float  # seconds for what follows the last step
    memory: int  # peak of this process, without mapped files
    free_memory: int
    disk: int
    free_disk: int
    advice: tuple[str, ...]
    validation_batches: int = 0
    seconds_between: float = 0.0  # per step, for evaluations, checkpoints and samples
    seconds_to_write: float = 0.0  # for the result and its report

    @property
    def fits(self) -> bool:
        """Return whether there is enough memory and disk."""
        return self.memory <= self.free_memory and self.disk <= self.free_disk

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for JSON."""
        return asdict(self) | {"fits": self.fits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Build a plan from the result of `as_dict`."""
        fields = {name: value for name, value in values.items() if name != "fits"}
        return cls(**{**fields, "advice": tuple(values["advice"])})


class Timed(NamedTuple):
    """Results of calibration: the pace of steps and of evaluating one batch, bytes, and seconds.

    `rough` means that the step was the first one, which takes longer than the others.
    """

    step: Pace
    evaluation: Pace
    peak: int  # bytes of memory while the step was timed
    held: int  # bytes of memory after it
    rough: bool
    measuring: float = 0.0  # seconds that measuring the model took


def schedule(trainer: Trainer, timed: Timed, out: Path, elapsed: Callable[[], float]) -> Plan:
    """Plan the steps of the whole run; a run of minutes also gets its clock, which reconsiders them."""
    settings, group = trainer.settings, trainer.group
    parts = group.size if trainer.distributed.shard else 1
    checkpoint, result = checkpoint_bytes(trainer), _result_bytes(trainer)
    cached = trainer.caches.bytes if trainer.caches is not None else 0
    saving = checkpoint / DISK_RATE
    sampling = 0.0 if settings.brief else timed.measuring * SAMPLING
    total = None if settings.minutes is None else settings.minutes * 60
    batches = 0 if trainer.validation is None else trainer.validation.batches_per_epoch(0)
    passes = math.ceil(batches / group.size)
    evaluation = Pace(timed.evaluation.first * passes, timed.evaluation.later * passes, 1)
    writing = WRITING if total is None else min(WRITING, WRITING_SHARE * total)
    reserve = timed.measuring + evaluation.later + writing + saving + result / DISK_RATE
    evaluations, each = settings.evaluations, evaluation.later + saving + sampling
    if total is not None:
        share = BRIEF_ON_THE_WAY if settings.brief else ON_THE_WAY
        evaluations = min(evaluations, 1 + int(share * total / max(each, 1e-3)))
        trainer.clock = Clock(total, elapsed, timed.step, reserve, rough=timed.rough)
        trainer.clock.ending += evaluation.first + (evaluations - 1) * each  # still to come
        steps = max(1, trainer.clock.steps_left(0))
        trainer.clock.ending = reserve
        trainer.clock.between = (evaluations - 1) * each / steps
    else:
        steps = trainer.requested_steps() or 1
    steps = trainer.steps or steps
    per_epoch = trainer.train.batches_per_epoch(0) / (settings.accumulation * group.size)
    learning, often = timed.step.seconds(steps), min(evaluations, steps)
    memory = int((timed.peak + moments_bytes(trainer) // parts) * GROWTH)
    free = available_memory() // group.local_size + timed.held
    return Plan(
        steps=steps,
        epochs=steps / per_epoch,
        seconds_per_step=learning / steps,
        seconds_per_evaluation=evaluation.later,
        seconds_per_save=saving,
        evaluations=evaluations,
        seconds=elapsed() + learning + evaluation.first + (often - 1) * each + reserve,
        reserve=reserve,
        memory=memory,
        free_memory=free,
        disk=cached + checkpoint * (CHECKPOINTS + 1) + result,  # one more exists while it is written
        free_disk=free_disk(out.absolute().parent),
        advice=tuple(remedies(settings)) if memory > free else (),
        validation_batches=batches,
        seconds_to_write=writing,
        seconds_between=0.0 if trainer.clock is None else trainer.clock.between,
    )


def batches_in(total: float, trainer: Trainer, timed: Timed) -> int:
    """Return how many batches to validate with in a run of `total` seconds."""
    if trainer.validation is None:
        return 0
    seconds = max(timed.evaluation.later, 1e-6)
    positions = trainer.settings.batch_size * trainer.settings.length
    least = min(max(1, FEWEST_POSITIONS // positions), int(LARGEST_EVALUATION * total / seconds))
    return max(1, least, int(EVALUATION * total / seconds))


def moments_bytes(trainer: Trainer) -> int:
    """Return the bytes of AdamW's two moments, each as wide as the weights, in bfloat16 too."""
    return 2 * sum(p.nbytes for p in trainer.trained.values())


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return the bytes of a checkpoint: trained weights, the rest of their masters if any, two moments."""
    trained, remainders = trainer.trained, trainer.model.master_remainder
    rest = sum(remainder.nbytes for name, remainder in remainders.items() if name in trained)
    return sum(p.nbytes for p in trained.values()) + rest + moments_bytes(trainer)


def _result_bytes(trainer: Trainer) -> int:
    """Return the most bytes that the result can take, which is in float32."""
    only_trained = trainer.settings.method == "lora"
    written = trainer.trained.values() if only_trained else trainer.model.parameters()
    return 4 * sum(parameter.numel() for parameter in written)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Estimated bytes that training takes in addition to the engine."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.weights + self.gradients + self.moments + self.activations

    def on_this_machine(self, group: ProcessGroup, *, shard: bool) -> MemoryEstimate:
        """Return the estimate for all processes on this machine; `shard` divides gradients and moments."""
        n, parts = group.local_size, group.size if shard else 1
        gradients, moments = n * self.gradients // parts, n * self.moments // parts
        return MemoryEstimate(n * self.weights, gradients, moments, n * self.activations)


def estimate_memory(config: ModelConfig, settings: TrainSettings) -> MemoryEstimate:
    """Estimate memory from shapes alone; activations are what autograd saves for the backward pass."""
    from pophood.train.model.precision import dtype_of

    bf16 = dtype_of(settings).itemsize == 2
    c, f, v = config.n_embd, config.n_inner, config.vocab_size
    kv = config.n_kv_head * config.head_dim
    blocks = settings.last_blocks if settings.method == "last" else config.n_layer
    trained = config.n_params
    if settings.method == "last":
        trained = blocks * (config.n_params - v * c) // config.n_layer
    elif settings.method == "lora":
        widths = 4 * c + 2 * (c + kv) + (3 if config.gated_mlp else 2) * (c + f)
        trained = config.n_layer * settings.lora.rank * widths
    saved = 7 * c + 4 * kv + (4 if config.gated_mlp else 3) * f  # numbers per token and block
    if bf16:  # the backward pass recomputes norms and the inside of the feed-forward (`ops.recompute_saved`)
        saved = 4 * c + 2 * kv + (2 if config.gated_mlp else 1) * f
    tokens = settings.batch_size * settings.length
    saved_blocks = 2 if settings.recompute else blocks
    chunk = 2**25  # of logits
    activations = tokens * (saved * saved_blocks + c * config.n_layer + 4 * f) + chunk
    halved = bf16 and settings.method != "lora"  # trained weights are bfloat16; LoRA's own are float32
    width, trained_width = 2 if bf16 else 4, 2 if halved else 4
    weights = width * config.n_params + (2 * trained if halved else 0)  # with the rest of float32 masters
    if settings.base == "q8":  # 36 bytes per 32 numbers of the blocks' matrices
        weights -= int((width - 1.125) * (config.n_params - (1 if config.tied_output else 2) * v * c))
    gradients = trained_width * trained
    return MemoryEstimate(weights, gradients, 2 * gradients, width * activations)


def refuse_unfit(
    config: ModelConfig, settings: TrainSettings, group: ProcessGroup = LOCAL, shard: bool = False
) -> None:
    """Raise OutOfMemory, saying what to change, if a run cannot fit; allocates nothing."""
    if settings.device == "cuda":
        return  # it has its own memory
    needed, free = estimate_memory(config, settings).on_this_machine(group, shard=shard), available_memory()
    if needed.total > free:
        raise OutOfMemory(
            f"training needs about {memory_text(needed.total)} more ({memory_text(needed.weights)} weights,"
            f" {memory_text(needed.gradients + needed.moments)} gradients and moments,"
            f" {memory_text(needed.activations)} activations); {memory_text(free)} is free:"
            f" {'; '.join(remedies(settings))}"
        )


def remedies(settings: TrainSettings) -> Iterator[str]:
    """Yield options that save memory, the cheapest first."""
    if settings.batch_size > 1:
        half = settings.batch_size // 2
        yield f"--batch-size {half} --accumulation {settings.accumulation * 2} (trains the same)"
    if not settings.recompute:
        yield "--recompute (a third slower)"
    if settings.method != "lora":
        yield "--method lora (unless from scratch)"
    elif settings.base != "q8" and settings.device == "cpu":
        yield "--base q8 (costs a little quality)"
    if settings.length > 64:
        yield f"--length {settings.length // 2}"
    yield "a smaller model"


class PeakMemory:
    """Samples this process's anonymous memory while a block runs; `bytes` is the peak.

    Outside Linux it is the peak of all resident memory since the process began.
    """

    def __init__(self, every: float = 0.02) -> None:
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.bytes = 0

    @property
    def now(self) -> int:
        """Bytes that the process holds at this moment."""
        return _held_bytes()

    def start(self) -> PeakMemory:
        """Start sampling."""
        self._thread.start()
        return self

    def __enter__(self) -> PeakMemory:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop sampling, and return the peak."""
        if not self._done.is_set():
            self._done.set()
            self._thread.join()
            self.bytes = max(self.bytes, _held_bytes())
        return self.bytes

    def _watch(self) -> None:
        while not self._done.is_set():
            self.bytes = max(self.bytes, _held_bytes())
            self._done.wait(self._every)


def _held_bytes() -> int:
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
