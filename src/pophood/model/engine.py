"""Engine: NumPy arrays in and out of the native module; sequences, taps, chunks. No files, text or sampling.

The arithmetic is in `native/engine/engine.cpp`. Here a model's tensors are handed over once, token ids go in,
and logits, hidden states and taps come out. Choosing a token is `sampling`, the loop is `generate`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pophood import _native, system
from pophood.adapters.adapter import Adapter
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput, Cancelled, ContextOverflow, EngineError, OutOfMemory, Unsupported
from pophood.taps import match_taps, taps_of

CHUNK = 512  # rows of one native call: enough for the multipliers, small enough to stop quickly
PRECISIONS = ("auto", "f32")
_ACTIVATIONS = {"gelu_tanh": 0, "gelu": 1, "silu": 2}
_AS_THEY_ARE = (  # fields of ModelConfig that the native one takes unchanged
    *("n_layer", "n_head", "n_kv_head", "n_embd", "head_dim", "n_inner", "vocab_size", "norm_eps"),
    *("gated_mlp", "qkv_bias", "attn_out_bias", "mlp_bias", "qk_norm", "tied_output"),
)
_OUTPUTS = {"none": 0, "logits": 1, "hidden": 2}

CancelFlag = _native.CancelFlag
Batch = Sequence[tuple[int, Sequence[int]]]


class StoredWeights(Protocol):
    """What `Engine.load` reads: `bundle.Weights` is one."""

    def stored(self, name: str) -> tuple[str, NDArray[np.generic]]:
        """The type ("F32", "F16" or "BF16", the last as uint16 bits) and values of one canonical tensor."""

    def stored_type(self, name: str) -> str:
        """The type in the file, quantised ones included."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What a forward pass gave: `output` [rows, V] or [rows, C], None for "none"; `taps` name -> [N, ...]."""

    output: NDArray[np.float32] | None
    taps: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes that a model will take: weights, activations of one chunk, keys and values per position."""

    weights: int
    activations: int
    cache_per_position: int
    context: int

    @property
    def least(self) -> int:
        """Weights, activations and the first block of keys and values."""
        return self.weights + self.activations + 32 * self.cache_per_position

    @property
    def full(self) -> int:
        """The same with one sequence that fills the context window."""
        return self.weights + self.activations + self.context * self.cache_per_position


def plan_memory(
    config: ModelConfig, stored_type: Callable[[str], str], context: int | None = None
) -> MemoryPlan:
    """Predict memory before anything is allocated: F16 and BF16 stay 2 bytes, all else becomes 4.

    Example: GPT-2 small from F32 is 497,759,232 bytes of weights.
    """
    weights = 0
    for name, shape in tensor_shapes(config).items():
        matrix = len(shape) == 2 and name != "embed.position"
        size = 2 if matrix and stored_type(name) in ("F16", "BF16") else 4
        rows = -(-shape[0] // 16) * 16 if matrix else shape[0]  # panels of 16 rows
        weights += rows * (shape[1] if len(shape) == 2 else 1) * size
    heads = config.head_dim * (2 * config.n_head + 2 * config.n_kv_head)
    inner = config.n_inner * (2 if config.gated_mlp else 1)
    activations = CHUNK * (2 * config.n_embd + heads + inner) * 4
    padded = -(-config.head_dim // 16) * 16
    return MemoryPlan(
        weights=weights,
        activations=activations,
        cache_per_position=config.n_layer * config.n_kv_head * 2 * padded * 4,
        context=context or config.n_positions,
    )


class Engine:
    """A model's forward pass over sequences that it keeps.

    `precision` is "auto" or "f32" (arithmetic in f32; F16 and BF16 weights keep their stored type);
    `threads` defaults to the machine's; `context` may shorten the model's window. `POPHOOD_ISA` forces an
    instruction set. Raises BadInput, Unsupported; `load` raises OutOfMemory.

        engine = Engine(bundle.config); engine.load(bundle.weights)
        sequence = engine.new_sequence()
        logits = engine.logits([(sequence, [464, 3139])])      # [1, V]
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: str = "auto",
        threads: int | None = None,
        context: int | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise Unsupported(
                f"precision {precision!r} is not there yet: choose one of {', '.join(PRECISIONS)}"
            )
        self.config = config
        self.precision = "f32"
        self.context = _checked_context(config, context)
        available = system.default_threads()
        self.threads = available if threads is None else threads
        if self.threads < 1:
            raise BadInput(f"threads must be at least 1, got {self.threads}")
        _native.allow_spinning(self.threads <= available)
        self._native = _native.Engine(_native_config(config, self.context), self.threads, _forced_isa())
        self.isa: str = self._native.facts["isa"]

    def load(self, weights: StoredWeights, progress: Callable[[int, int], None] | None = None) -> None:
        """Pack every tensor of the model; nothing of the source is kept.

        `progress(done, total)` counts tensors. Raises OutOfMemory before loading anything.
        """
        plan = plan_memory(self.config, weights.stored_type, self.context)
        available = system.available_memory()
        if plan.least > available:
            raise OutOfMemory(
                f"the model needs {_gib(plan.weights)} for weights and {_gib(plan.least - plan.weights)} to "
                f"compute, {_gib(plan.least)} in all; {_gib(available)} is free: close programs, or take a "
                "smaller model"
            )
        names = list(tensor_shapes(self.config))
        for i, name in enumerate(names):
            kind, values = weights.stored(name)
            if values.dtype == np.float16:
                values = values.view(np.uint16)
            shape = tensor_shapes(self.config)[name]
            if name == "embed.position":
                values, shape = values[: self.context], (self.context, *shape[1:])
            if values.shape != shape:
                raise BadInput(f"{name}: wanted shape {shape}, got {values.shape}")
            self._native.set_tensor(name, values, kind)
            if progress is not None:
                progress(i + 1, len(names))

    def use_adapters(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Compute with these adapters, each times its own factor, in place of those before; [] clears.

        The weights stay as they are; every sequence is dropped, since its keys and values were another
        model's. Raises BadInput for an adapter that does not fit.

            engine.use_adapters([(adapter, 1.0)])
        """
        shapes = tensor_shapes(self.config)
        for adapter, _ in adapters:
            adapter.check(shapes)
        self._native.clear_adapters()
        for adapter, factor in adapters:
            for name, (a, b) in adapter.targets.items():
                scaled = b * np.float32(adapter.scale * factor)
                self._native.add_adapter(name, np.ascontiguousarray(a), np.ascontiguousarray(scaled))

    # ---- sequences: each has keys and values of its own, shared until they part ----

    def new_sequence(self) -> int:
        """An empty sequence; `drop` it when done."""
        return int(self._native.create())

    def fork(self, sequence: int) -> int:
        """A copy in O(1): keys and values are shared until one of the two goes on."""
        return int(self._native.fork(sequence))

    def truncate(self, sequence: int, length: int) -> None:
        """Forget everything after the first `length` positions."""
        self._native.truncate(sequence, length)

    def drop(self, sequence: int) -> None:
        """Give the sequence's memory back."""
        self._native.drop(sequence)

    def length(self, sequence: int) -> int:
        """Positions that the sequence holds."""
        return int(self._native.length(sequence))

    @property
    def weight_bytes(self) -> int:
        """Memory that the packed weights take."""
        return int(self._native.facts["weight_bytes"])

    @property
    def cache_bytes(self) -> int:
        """Memory that keys and values take now."""
        return int(self._native.cache_bytes())

    # ---- forward ----

    def logits(self, batch: Batch, cancel: CancelFlag | None = None) -> NDArray[np.float32]:
        """Append tokens to sequences; the logits [len(batch), V] after the last token of each.

        Raises ContextOverflow, EngineError (a NaN), Cancelled; every sequence is then as before the call.
        """
        output = self.forward(batch, cancel=cancel).output
        assert output is not None
        return output

    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["none", "logits", "hidden"] = "logits",
        rows: Literal["last", "all"] = "last",
        taps: Sequence[str] = (),
        cancel: CancelFlag | None = None,
        chunk: int = CHUNK,
    ) -> Forward:
        """Append tokens to sequences and return what is asked for.

        `rows`: the last token of each sequence, or every token. `hidden` is [rows, C] after the final norm.
        `taps`: names or wildcards of read taps (`pophood.taps`), each over all N tokens of the batch: [N, C],
        [N, H, D], ...; scores and pattern are [N, H, longest sequence]. Chunks never change a bit.
        """
        tokens, sequences, wanted = _flatten(batch, rows, self.config.vocab_size)
        self._check_room(batch)
        n, width = len(tokens), self.config.vocab_size if output == "logits" else self.config.n_embd
        keys = max(self.length(sequence) + len(ids) for sequence, ids in batch)
        matched = match_taps(self.config, taps)
        readings = dict(zip(matched, _arrays([tap.shape(n, keys) for tap in matched]), strict=True))
        out = None if output == "none" else np.empty((len(wanted), width), np.float32)
        before = [(sequence, self.length(sequence)) for sequence, _ in batch]
        try:
            for start in range(0, n, chunk):
                stop = min(start + chunk, n)
                first, last = np.searchsorted(wanted, [start, stop])
                self._native.forward(
                    tokens[start:stop],
                    sequences[start:stop],
                    _OUTPUTS[output],
                    wanted[first:last] - start,
                    None if out is None else out[first:last],
                    [(tap.number, tap.layer, values[start:stop]) for tap, values in readings.items()],
                    cancel,
                )
        except BaseException as error:
            for sequence, length in before:
                if self.length(sequence) > length:
                    self.truncate(sequence, length)
            if isinstance(error, _native.NotFinite):
                raise EngineError(
                    f"{error}: the weights hold a NaN or overflow; `pophood show -v` names the tensor"
                ) from None
            if isinstance(error, _native.Stopped):
                raise Cancelled("the forward pass was cancelled") from None
            raise
        return Forward(out, {tap.name: values for tap, values in readings.items()})

    def tap_names(self) -> list[str]:
        """Every read tap of this model, in order of execution."""
        return list(taps_of(self.config))

    def _check_room(self, batch: Batch) -> None:
        for sequence, ids in batch:
            if len(ids) == 0:
                raise BadInput(f"sequence {sequence} got no tokens: a forward pass needs at least one")
            if (total := self.length(sequence) + len(ids)) > self.context:
                raise ContextOverflow(total, self.context, why=self.config.limited_by(self.context))


def read_bandwidth(threads: int, size: int = 1 << 30, rounds: int = 10) -> float:
    """Bytes per second that `threads` threads read: the best of `rounds` sums over `size` bytes."""
    return float(_native.read_bandwidth(threads, size, rounds))


def instruction_sets() -> list[str]:
    """The kernels that can run here, the fastest last: ["scalar", "avx2"]."""
    return str(_native.available_isa()).split()


def _forced_isa() -> str:
    forced = os.environ.get("POPHOOD_ISA", "")
    if forced and forced not in instruction_sets():
        raise BadInput(f"POPHOOD_ISA={forced} cannot run here; there are: {', '.join(instruction_sets())}")
    return forced


def _checked_context(config: ModelConfig, context: int | None) -> int:
    if context is None:
        return config.n_positions
    if not 1 <= context <= config.n_positions:
        since = f": longer ones are not computed, since {config.limit.why}" if config.limit else ""
        raise BadInput(f"context must be 1..{config.n_positions:,}, got {context:,}{since}")
    return context


def _native_config(config: ModelConfig, context: int) -> _native.Config:
    return _native.Config(
        **{name: getattr(config, name) for name in _AS_THEY_ARE},
        n_positions=context,
        rms_norm=config.norm == "rms",
        activation=_ACTIVATIONS[config.activation],
        frequencies=[] if config.rope is None else config.rope.frequencies(config.head_dim).tolist(),
    )


def _flatten(
    batch: Batch, rows: str, vocab_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    lengths = [len(ids) for _, ids in batch]
    tokens = [token for _, ids in batch for token in ids]
    wrong = next((token for token in tokens if not 0 <= token < vocab_size), None)
    if wrong is not None:
        raise BadInput(f"token id {wrong} is not in the vocabulary: wanted 0..{vocab_size - 1:,}")
    sequences = np.repeat(np.array([sequence for sequence, _ in batch], np.int64), lengths)
    ids = np.array(tokens, np.int32)
    if rows == "all":
        return ids, sequences, np.arange(len(ids), dtype=np.int64)
    return ids, sequences, np.cumsum(lengths, dtype=np.int64) - 1


def _arrays(shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.float32]]:
    """Arrays side by side in one allocation, which the system can then back with huge pages."""
    sizes = [math.prod(shape) for shape in shapes]
    arena = np.empty(sum(sizes), np.float32)
    parts = np.split(arena, np.cumsum(sizes[:-1])) if sizes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
