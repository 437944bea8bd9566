"""The memory of a run: an estimate from shapes before anything is allocated, and the peak while it runs."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from pophood.config import ModelConfig
from pophood.errors import OutOfMemory
from pophood.system import available_memory, memory_text
from pophood.train.distributed.process_group import LOCAL, ProcessGroup
from pophood.train.settings import TrainSettings


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


def remedies(settings: TrainSettings) -> list[str]:
    """Return options that save memory, the cheapest first."""
    options = []
    if settings.batch_size > 1:
        half = settings.batch_size // 2
        options.append(f"--batch-size {half} --accumulation {settings.accumulation * 2} (trains the same)")
    if not settings.recompute:
        options.append("--recompute (a third slower)")
    if settings.method != "lora":
        options.append("--method lora (unless from scratch)")
    elif settings.base != "q8" and settings.device == "cpu":
        options.append("--base q8 (costs a little quality)")
    if settings.length > 64:
        options.append(f"--length {settings.length // 2}")
    return [*options, "a smaller model"]


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
