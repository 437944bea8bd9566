"""Engine: the forward pass of a loaded model, with NumPy arrays in and out. No files, text or sampling.

The arithmetic is in `native/engine/engine.cpp`. This module hands a model's tensors over once, then passes
token ids in and logits, hidden states and taps out. `sampling` chooses tokens, `generate` has the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pophood import _native, system
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput, ContextOverflow, OutOfMemory, Unsupported
from pophood.generate.decoder import CHUNK
from pophood.model.call import (
    Batch,
    Forward,
    Rows,
    SharedTurns,
    Summary,
    TapArrays,
    flatten,
    in_chunks,
    native_errors,
    new_summary,
    positions,
    unembed,
)
from pophood.model.edits import Edit, prepare
from pophood.model.machine import (
    checked_threads,
    forced_isa,
    instruction_sets,
    multiply_rate,
    read_bandwidth,
)
from pophood.model.memory import (
    COMPUTED_BLOCKS,
    KV_TYPES,
    PRECISIONS,
    MemoryPlan,
    checked_context,
    computed_precision,
    computed_type,
    plan_memory,
    rounds_inputs,
)
from pophood.model.native_config import native_config
from pophood.model.sequences import Sequences
from pophood.taps import RowReading, Tap, match_taps

__all__ = [
    "Batch",
    "CancelFlag",
    "Edit",
    "Engine",
    "Forward",
    "Rows",
    "Summary",
    "instruction_sets",
    "multiply_rate",
    "read_bandwidth",
]

_KV_NAMES = {"f32": "F32", "f16": "F16", "q8": "Q8_0"}  # of the native engine
_OUTPUTS = {"none": 0, "logits": 1, "hidden": 2, "summary": 3}

DROP_AFTER = 16 << 20  # weights that are packed before their pages leave memory; each time takes 0.1 ms
LARGE = 64 << 20  # tensors of so many weights are packed first, while their pages are not yet the most memory

CancelFlag = _native.CancelFlag
"""Stops a forward pass within one block: any thread may `set()` it; `clear()` resets it, `is_set` tells."""
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
    """A source that reads mapped files."""

    def drop_pages(self) -> None:
        """Take what was read of the files out of memory."""


class Engine(Sequences):
    """A model's forward pass, with the keys and values of any number of sequences.

    `precision`: "auto" computes GGUF's blocks as they are stored (`memory.COMPUTED_BLOCKS`), with activations
    quantised to 8 bits, BF16 in bfloat16 where the processor can, and everything else in f32; "q8" and
    "q4" quantise the other matrices too; "f32" decodes the blocks. `kv` is the type of keys and values:
    "auto" takes f16 where some matrix rounds its inputs, else f32. `threads` defaults to the machine's;
    `context` may shorten the model's window. `POPHOOD_ISA` forces an instruction set. Raises BadInput,
    Unsupported; `load` raises OutOfMemory.

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
        self.context = checked_context(config, context)
        self.threads = checked_threads(threads)
        self.turns = SharedTurns()
        super().__init__(_native.Engine(native_config(config, self.context), self.threads, forced_isa()))
        self.isa: str = self._native.facts["isa"]

    def settle(self, weights: StoredWeights) -> MemoryPlan:
        """Replace "auto" by the precision and the type of keys and values that these weights mean.

        Return the memory that they take. `load` does the same; without it the engine cannot compute.
        """
        plan = plan_memory(self.config, weights.stored_type, self.context, self.precision, self.kv)
        self.precision = computed_precision(self.config, weights.stored_type, self.precision)
        self.kv = plan.kv_type
        return plan

    def load(self, weights: StoredWeights, progress: Callable[[int, int], object] | None = None) -> None:
        """Pack every tensor of the model; keeps no reference to `weights`, and no page of a mapped file.

        `progress(done, total)` counts weights. Raises OutOfMemory before it loads anything.
        """
        plan = self.settle(weights)
        available = system.available_memory()
        if plan.least > available:
            raise OutOfMemory(
                f"the model needs {_gib(plan.weights)} for weights and {_gib(plan.least - plan.weights)} to "
                f"compute, {_gib(plan.least)} in all; {_gib(available)} is free: close programs, or take a "
                "smaller model"
            )
        self._native.set_kv_type(_KV_NAMES[plan.kv_type])
        shapes = tensor_shapes(self.config)
        mapped = weights if isinstance(weights, MappedWeights) else None
        done, total, read = 0, self.config.n_params, 0  # weights: packed, of all, and since the last drop
        for name, shape in sorted(shapes.items(), key=lambda item: math.prod(item[1]) < LARGE):
            stored, size = weights.stored_type(name), math.prod(shape)
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
                rounds = rounds_inputs(computed, self.precision)
                held = "BF16_PAIRS" if rounds and kind == computed else computed if rounds else ""
                self._native.set_tensor(name, values, kind, held)
            done, read = done + size, read + size
            if mapped is not None and (read >= DROP_AFTER or done == total):
                mapped.drop_pages()
                read = 0
            if progress is not None:
                progress(done, total)

    def use_threads(self, threads: int | None) -> None:
        """Compute with this many threads from now on (None: the machine's); no number depends on it."""
        self.threads = checked_threads(threads)
        self._native.set_threads(self.threads)

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

    def summary(
        self,
        batch: Batch,
        k: int = 0,
        cancel: CancelFlag | None = None,
        *,
        rows: Rows | Sequence[int] = "last",
        allowed: NDArray[np.uint32] | None = None,
        targets: Sequence[int] | None = None,
        whole: bool = False,
        cancels: Mapping[int, CancelFlag] = {},
        readings: Sequence[RowReading] = (),
    ) -> Summary:
        """Append tokens to sequences; return the distribution of the next token, without rows of logits.

        It has log-sum-exp, entropy and the `k` likeliest tokens of each output row; with `targets`, a token
        per row, their logits and ranks too; with `whole` all logits. `rows` may be how many of the last
        tokens of each sequence have a row. `allowed` [rows, ceil(V / 32)] is a bitmask of the tokens that
        take part, bit i % 32 of word i / 32. `readings` are values inside, of some rows. `cancels` are as in
        `forward`. Raises as `logits`.

            engine.summary([(sequence, [464])], k=5).ids       # [1, 5], the likeliest first
        """
        made = self._forward(
            batch,
            "summary",
            rows,
            k=k,
            allowed=allowed,
            targets=targets,
            whole=whole,
            cancel=cancel,
            cancels=cancels,
            readings=readings,
        )
        found: Summary = made.output
        if not made.cancelled and not readings:
            return found
        return replace(found, cancelled=made.cancelled, readings=made.readings)

    def unembed(
        self, hidden: NDArray[np.float32], k: int = 0, *, whole: bool = False, entropy: bool = True
    ) -> Summary:
        """Return the distributions that residual streams [R, C] give as outputs of the last block.

        This is the logit lens: final norm and output matrix, with the arithmetic of a forward pass. `k` and
        `whole` are as in `summary`; without `entropy` it is NaN. Raises BadInput, EngineError for a NaN.
        """
        return unembed(self._native, self.config, hidden, k, whole=whole, entropy=entropy, turns=self.turns)

    @overload
    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["none"],
        taps: Taps = ...,
        edits: Sequence[Edit] = ...,
        cancel: CancelFlag | None = ...,
        cancels: Mapping[int, CancelFlag] = ...,
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
        edits: Sequence[Edit] = ...,
        cancel: CancelFlag | None = ...,
        cancels: Mapping[int, CancelFlag] = ...,
        chunk: int = ...,
    ) -> Forward[NDArray[np.float32]]: ...

    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["none", "logits", "hidden"] = "logits",
        rows: Rows = "last",
        taps: Taps = (),
        edits: Sequence[Edit] = (),
        cancel: CancelFlag | None = None,
        cancels: Mapping[int, CancelFlag] = {},
        chunk: int = CHUNK,
    ) -> Forward[Any]:
        """Append tokens to sequences and return the requested output and taps.

        `rows` selects the last token of each sequence or every token; "hidden" is [rows, C] after the final
        norm. `taps` are names or wildcards of read taps (`pophood.taps`), or what `match_taps` returned;
        their arrays cover all N tokens of the batch: [N, C], [N, H, D], ...; scores and pattern are [N, H,
        longest sequence]. `edits` change values in between, in their order. `cancels` holds flags that end
        one sequence each, the others go on; `Forward.cancelled` names those, whose lengths are as before and
        whose output is NaN. The size of a chunk does not change a bit of the results.
        """
        return self._forward(
            batch, output, rows, taps=taps, edits=edits, cancel=cancel, cancels=cancels, chunk=chunk
        )

    def _forward(
        self,
        batch: Batch,
        output: str,
        rows: Rows | Sequence[int],
        *,
        k: int = 0,
        allowed: NDArray[np.uint32] | None = None,
        targets: Sequence[int] | None = None,
        whole: bool = False,
        taps: Taps = (),
        edits: Sequence[Edit] = (),
        cancel: CancelFlag | None = None,
        cancels: Mapping[int, CancelFlag] = {},
        chunk: int = CHUNK,
        readings: Sequence[RowReading] = (),
    ) -> Forward[Any]:
        tokens, sequences, selected = flatten(self.config, batch, rows)
        self._check_room(batch)
        n, before = len(tokens), {sequence: self.length(sequence) for sequence, _ in batch}
        keys = max(before[sequence] + len(ids) for sequence, ids in batch)
        patterns = [tap for tap in taps if isinstance(tap, str)]
        matched = [tap for tap in taps if isinstance(tap, Tap)] or match_taps(self.config, patterns)
        inside = TapArrays(matched, readings, n, keys) if matched or readings else None
        prepared = prepare(self.config, edits, sequences, positions(batch, before), keys) if edits else []
        width = {"logits": self.config.vocab_size, "hidden": self.config.n_embd}.get(output)
        out = None if width is None else np.empty((len(selected), width), np.float32)
        summary = None
        if output == "summary":
            summary = new_summary(self.config, len(selected), k, allowed, targets, whole)
            out = summary.whole

        def run(start: int, stop: int) -> list[int]:
            every = start == 0 and stop == n
            first, last = (0, len(selected)) if every else np.searchsorted(selected, [start, stop])
            return self._native.forward(
                tokens[start:stop],
                sequences[start:stop],
                _OUTPUTS[output],
                selected[first:last] - start,
                None if out is None else out[first:last],
                [] if inside is None else inside.native(start, stop),
                cancel,
                None if summary is None else summary.native(first, last),
                [part for edit in prepared if (part := edit.rows(start, stop)) is not None],
                dict(cancels),
            )

        try:
            with native_errors():
                cancelled = in_chunks(run, sequences, lambda: self.turns.rows(chunk))
        except BaseException:
            self._restore(before)
            raise
        self._restore({sequence: before[sequence] for sequence in cancelled})
        if out is not None and cancelled:
            out[np.isin(sequences[selected], list(cancelled))] = np.nan
        result, ended = out if summary is None else summary, tuple(sorted(cancelled))
        read = ({}, ()) if inside is None else (inside.by_name, inside.in_order)
        return Forward(result, read[0], ended, read[1])

    def _restore(self, lengths: Mapping[int, int]) -> None:
        for sequence, length in lengths.items():
            if self.length(sequence) > length:
                self.truncate(sequence, length)

    def _check_room(self, batch: Batch) -> None:
        for sequence, ids in batch:
            if len(ids) == 0:
                raise BadInput(f"sequence {sequence} got no tokens: a forward pass needs at least one")
            if (total := self.length(sequence) + len(ids)) > self.context:
                raise ContextOverflow(total, self.context, why=self.config.limited_by(self.context))


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
