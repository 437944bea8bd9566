"""Engine: the forward pass of a loaded model, with NumPy arrays in and out. No files, text or sampling.

The arithmetic is in `native/engine/engine.cpp`. This module hands a model's tensors over once, then passes
token ids in and logits, hidden states and taps out. `sampling` chooses tokens, `generate` has the loop.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pophood import _native, system
from pophood.adapters.adapter import Adapter
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput, Cancelled, ContextOverflow, EngineError, OutOfMemory, Unsupported
from pophood.model.memory import (
    CHUNK,
    COMPUTED_BLOCKS,
    KV_TYPES,
    PRECISIONS,
    computed_precision,
    computed_type,
    plan_memory,
)
from pophood.taps import Tap, match_taps

_ACTIVATIONS = {"gelu_tanh": 0, "gelu": 1, "silu": 2}
_SAME_FIELDS = (  # fields of ModelConfig that the native configuration takes unchanged
    *("n_layer", "n_head", "n_kv_head", "n_embd", "head_dim", "n_inner", "vocab_size", "norm_eps"),
    *("gated_mlp", "qkv_bias", "attn_out_bias", "mlp_bias", "qk_norm", "tied_output"),
)
_OUTPUTS = {"none": 0, "logits": 1, "hidden": 2}

CancelFlag = _native.CancelFlag
Batch = Sequence[tuple[int, Sequence[int]]]
Rows = Literal["last", "all"]
Taps = Sequence[str] | Sequence[Tap]  # patterns of `match_taps`, or what it returned


class StoredWeights(Protocol):
    """The source that `Engine.load` reads, such as `bundle.Weights`."""

    def stored(self, name: str) -> tuple[str, NDArray[np.generic]]:
        """Return the type ("F32", "F16", or "BF16" as uint16 bits) and the values of one canonical tensor."""

    def stored_type(self, name: str) -> str:
        """Return the type in the file, which may be a quantised one."""


@runtime_checkable
class StoredBlocks(Protocol):
    """A source that can also hand out quantised matrices as they are stored."""

    def blocks(self, name: str) -> NDArray[np.uint8]:
        """Return the blocks of a quantised matrix, [out, bytes of a row]."""


@runtime_checkable
class MappedWeights(Protocol):
    """A source that reads a mapped file."""

    def drop_pages(self, name: str) -> None:
        """Take a tensor's part of the file out of memory."""


OutputT = TypeVar("OutputT", NDArray[np.float32], None)


@dataclass(frozen=True, slots=True)
class Forward(Generic[OutputT]):
    """The results of a pass: `output` [rows, V] or [rows, C], None for "none"; `taps`: name -> [N, ...]."""

    output: OutputT
    taps: dict[str, NDArray[np.float32]]


class Engine:
    """A model's forward pass, with the keys and values of any number of sequences.

    `precision`: "auto" computes Q8_0, Q4_0 and Q4_1 blocks as they are stored, with activations quantised to
    8 bits, and everything else in f32 (F16 and BF16 weights keep their stored type); "q8" quantises the other
    matrices too; "f32" decodes the blocks. `kv` is the type of keys and values: "auto" takes f16 where blocks
    are computed as stored, else f32. `threads` defaults to the machine's; `context` may shorten the
    model's window. `POPHOOD_ISA` forces an instruction set. Raises BadInput, Unsupported; `load` raises
    OutOfMemory.

        engine = Engine(bundle.config); engine.load(bundle.weights)
        with engine.sequence() as sequence:
            logits = engine.logits([(sequence, [464, 3139])])      # [1, V]
    """

    def __init__(
        self,
        config: ModelConfig,
        precision: str = "auto",
        threads: int | None = None,
        context: int | None = None,
        kv: str = "auto",
    ) -> None:
        if kv not in KV_TYPES:
            raise Unsupported(f"keys and values {kv!r}: choose one of {', '.join(KV_TYPES)}")
        if precision not in PRECISIONS:
            raise Unsupported(
                f"precision {precision!r} is not available: choose one of {', '.join(PRECISIONS)}"
            )
        self.config = config
        self.precision = precision
        self.kv = kv
        self.context = _checked_context(config, context)
        self.threads = _checked_threads(threads)
        self._native = _native.Engine(_native_config(config, self.context), self.threads, _forced_isa())
        self.isa: str = self._native.facts["isa"]

    def load(self, weights: StoredWeights, progress: Callable[[int, int], None] | None = None) -> None:
        """Pack every tensor of the model; keeps no reference to `weights`, and no page of a mapped file.

        `progress(done, total)` counts tensors. Raises OutOfMemory before it loads anything.
        """
        plan = plan_memory(self.config, weights.stored_type, self.context, self.precision, self.kv)
        available = system.available_memory()
        if plan.least > available:
            raise OutOfMemory(
                f"the model needs {_gib(plan.weights)} for weights and {_gib(plan.least - plan.weights)} to "
                f"compute, {_gib(plan.least)} in all; {_gib(available)} is free: close programs, or take a "
                "smaller model"
            )
        self.kv = plan.kv_type
        self.precision = computed_precision(self.config, weights.stored_type, self.precision)
        self._native.set_kv_type(plan.kv_type.upper())
        shapes = tensor_shapes(self.config)
        mapped = weights if isinstance(weights, MappedWeights) else None
        for done, (name, shape) in enumerate(shapes.items(), 1):
            stored = weights.stored_type(name)
            computed = computed_type(name, shape, stored, self.precision)
            if computed == stored and computed in COMPUTED_BLOCKS and isinstance(weights, StoredBlocks):
                self._native.set_tensor(name, weights.blocks(name), stored)
            else:
                kind, values = weights.stored(name)
                if values.dtype == np.float16:
                    values = values.view(np.uint16)
                if name == "embed.position":
                    values, shape = values[: self.context], (self.context, *shape[1:])
                if values.shape != shape:
                    raise BadInput(f"{name}: wanted shape {shape}, got {values.shape}")
                self._native.set_tensor(name, values, kind, quantize=computed == "Q8_0")
            if mapped is not None:
                mapped.drop_pages(name)
            if progress is not None:
                progress(done, len(shapes))

    def use_threads(self, threads: int | None) -> None:
        """Compute with this many threads from now on (None: the machine's); no number depends on it."""
        self.threads = _checked_threads(threads)
        self._native.set_threads(self.threads)

    def use_adapters(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Compute with these adapters, each scaled by its factor, instead of the present ones; [] clears.

        The weights do not change. Every sequence is dropped, since another model computed its keys and
        values. Raises BadInput for an adapter that does not fit.

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

    # ---- sequences ----

    @contextmanager
    def sequence(self) -> Iterator[int]:
        """Create an empty sequence for the duration of a `with`, and drop it at the end."""
        sequence = self.new_sequence()
        try:
            yield sequence
        finally:
            self.drop(sequence)

    def new_sequence(self) -> int:
        """Create an empty sequence, which lives until `drop`."""
        return int(self._native.create())

    def fork(self, sequence: int) -> int:
        """Copy a sequence in O(1): both share keys and values until one of them grows."""
        return int(self._native.fork(sequence))

    def truncate(self, sequence: int, length: int) -> None:
        """Remove everything after the first `length` positions."""
        self._native.truncate(sequence, length)

    def drop(self, sequence: int) -> None:
        """Remove a sequence and free its memory."""
        self._native.drop(sequence)

    def length(self, sequence: int) -> int:
        """Return the number of positions in a sequence."""
        return int(self._native.length(sequence))

    @property
    def weight_bytes(self) -> int:
        """Memory of the packed weights."""
        return int(self._native.facts["weight_bytes"])

    @property
    def cache_bytes(self) -> int:
        """Memory of all keys and values at present."""
        return int(self._native.cache_bytes())

    # ---- forward ----

    def logits(
        self, batch: Batch, cancel: CancelFlag | None = None, *, rows: Rows = "last"
    ) -> NDArray[np.float32]:
        """Append tokens to sequences; return the logits [len(batch), V] after the last token of each.

        With `rows="all"` the result has those after every token, [N, V]. Raises ContextOverflow, EngineError
        (a NaN), Cancelled; every sequence is then as before the call.
        """
        return self.forward(batch, rows=rows, cancel=cancel).output

    @overload
    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["none"],
        taps: Taps = ...,
        cancel: CancelFlag | None = ...,
        chunk: int = ...,
    ) -> Forward[None]: ...

    @overload
    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["logits", "hidden"] = ...,
        rows: Rows = ...,
        taps: Taps = ...,
        cancel: CancelFlag | None = ...,
        chunk: int = ...,
    ) -> Forward[NDArray[np.float32]]: ...

    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["none", "logits", "hidden"] = "logits",
        rows: Rows = "last",
        taps: Taps = (),
        cancel: CancelFlag | None = None,
        chunk: int = CHUNK,
    ) -> Forward[Any]:
        """Append tokens to sequences and return the requested output and taps.

        `rows` selects the last token of each sequence or every token; "hidden" is [rows, C] after the final
        norm. `taps` are names or wildcards of read taps (`pophood.taps`), or what `match_taps` returned;
        their arrays cover all N tokens of the batch: [N, C], [N, H, D], ...; scores and pattern are [N, H,
        longest sequence]. The size of a chunk does not change a bit of the results.
        """
        tokens, sequences, selected = _flatten(self.config, batch, rows)
        self._check_room(batch)
        n, width = len(tokens), self.config.vocab_size if output == "logits" else self.config.n_embd
        keys = max(self.length(sequence) + len(ids) for sequence, ids in batch)
        patterns = [tap for tap in taps if isinstance(tap, str)]
        matched = [tap for tap in taps if isinstance(tap, Tap)] or match_taps(self.config, patterns)
        readings = dict(zip(matched, _arrays([tap.shape(n, keys) for tap in matched]), strict=True))
        out = None if output == "none" else np.empty((len(selected), width), np.float32)
        before = [(sequence, self.length(sequence)) for sequence, _ in batch]
        try:
            for start in range(0, n, chunk):
                stop = min(start + chunk, n)
                first, last = np.searchsorted(selected, [start, stop])
                self._native.forward(
                    tokens[start:stop],
                    sequences[start:stop],
                    _OUTPUTS[output],
                    selected[first:last] - start,
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

    def _check_room(self, batch: Batch) -> None:
        for sequence, ids in batch:
            if len(ids) == 0:
                raise BadInput(f"sequence {sequence} got no tokens: a forward pass needs at least one")
            if (total := self.length(sequence) + len(ids)) > self.context:
                raise ContextOverflow(total, self.context, why=self.config.limited_by(self.context))


def read_bandwidth(threads: int, size: int = 1 << 30, rounds: int = 10) -> float:
    """Measure the bytes per second that some threads read: the best of `rounds` sums over `size` bytes."""
    return float(_native.read_bandwidth(threads, size, rounds))


def multiply_rate(threads: int, rounds: int = 10) -> float:
    """Measure the operations per second of 8-bit products from the caches: the best of `rounds`.

    A multiplication and an addition are two operations. `POPHOOD_ISA` forces an instruction set.
    """
    return float(_native.multiply_rate(threads, rounds, _forced_isa()))


def instruction_sets() -> list[str]:
    """Return the instruction sets that can run here, the fastest last: ["scalar", "avx2"]."""
    return str(_native.available_isa()).split()


def _forced_isa() -> str:
    forced = os.environ.get("POPHOOD_ISA", "")
    if forced and forced not in instruction_sets():
        raise BadInput(f"POPHOOD_ISA={forced} cannot run here; there are: {', '.join(instruction_sets())}")
    return forced


def _checked_threads(threads: int | None) -> int:
    """Return the number of threads; idle ones may spin only if each has a processor of its own."""
    available = system.default_threads()
    chosen = available if threads is None else threads
    if chosen < 1:
        raise BadInput(f"threads must be at least 1, got {chosen}")
    _native.allow_spinning(chosen <= available)
    return chosen


def _checked_context(config: ModelConfig, context: int | None) -> int:
    if context is None:
        return config.n_positions
    if not 1 <= context <= config.n_positions:
        since = f": longer ones are not computed, since {config.limit.why}" if config.limit else ""
        raise BadInput(f"context must be 1..{config.n_positions:,}, got {context:,}{since}")
    return context


def _native_config(config: ModelConfig, context: int) -> _native.Config:
    return _native.Config(
        **{name: getattr(config, name) for name in _SAME_FIELDS},
        n_positions=context,
        rms_norm=config.norm == "rms",
        activation=_ACTIVATIONS[config.activation],
        frequencies=[] if config.rope is None else config.rope.frequencies(config.head_dim).tolist(),
    )


def _flatten(
    config: ModelConfig, batch: Batch, rows: Rows
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens [N], the sequence of each [N], and the indices of the output rows."""
    lengths = [len(ids) for _, ids in batch]
    tokens = np.array([token for _, ids in batch for token in config.check_ids(ids)], np.int32)
    sequences = np.repeat(np.array([sequence for sequence, _ in batch], np.int64), lengths)
    if rows == "all":
        return tokens, sequences, np.arange(len(tokens), dtype=np.int64)
    return tokens, sequences, np.cumsum(lengths, dtype=np.int64) - 1


def _arrays(shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.float32]]:
    """Return arrays that share one allocation, which the system can then back with huge pages."""
    sizes = [math.prod(shape) for shape in shapes]
    arena = np.empty(sum(sizes), np.float32)
    parts = np.split(arena, np.cumsum(sizes[:-1])) if sizes else []
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
