"""An engine's sequences: their lives, the adapters that they are computed with, their keys and values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pophood import _native
from pophood.adapters.adapter import Adapter
from pophood.config import ModelConfig, tensor_shapes
from pophood.errors import BadInput
from pophood.model.call import KvState


class Sequences:
    """The part of `Engine` that creates, forks, cuts, copies and drops sequences.

    `adapters` are the numbers of those that new sequences are computed with. Methods raise IndexError for a
    sequence or an adapter that does not exist.
    """

    config: ModelConfig
    context: int
    kv: str

    def __init__(self, native: _native.Engine) -> None:
        self._native = native
        self.adapters: tuple[int, ...] = ()
        self._sequence_adapters: dict[int, tuple[int, ...]] = {}

    def add_adapter(self, adapter: Adapter, factor: float = 1.0) -> int:
        """Pack an adapter scaled by a factor; return its number, which `new_sequence` takes.

        No weight changes. Raises BadInput for an adapter that does not fit.
        """
        adapter.check(tensor_shapes(self.config))
        number = int(self._native.create_adapter())
        for name, (a, b) in adapter.targets.items():
            scaled = b * np.float32(adapter.scale * factor)
            self._native.set_adapter_pair(number, name, np.ascontiguousarray(a), np.ascontiguousarray(scaled))
        return number

    def remove_adapter(self, number: int) -> None:
        """Forget an adapter. Sequences that were created with it keep it."""
        self._native.drop_adapter(number)
        self.adapters = tuple(other for other in self.adapters if other != number)

    def use_adapters(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Create new sequences with these adapters, each scaled by its factor; with [] without any.

        Sequences that exist keep the adapters that they were created with. Raises BadInput for an adapter
        that does not fit.

            engine.use_adapters([(adapter, 1.0)])
        """
        shapes = tensor_shapes(self.config)
        for adapter, _ in adapters:
            adapter.check(shapes)
        for number in self.adapters:
            self.remove_adapter(number)
        self.adapters = tuple(self.add_adapter(adapter, factor) for adapter, factor in adapters)

    @contextmanager
    def sequence(self, adapters: Sequence[int] | None = None) -> Iterator[int]:
        """Create an empty sequence for the duration of a `with`, and drop it at the end."""
        sequence = self.new_sequence(adapters)
        try:
            yield sequence
        finally:
            self.drop(sequence)

    def new_sequence(self, adapters: Sequence[int] | None = None) -> int:
        """Create an empty sequence, which lives until `drop`.

        It is computed with these adapters (numbers of `add_adapter`), which add up; None: those of
        `use_adapters`. One batch may hold sequences with different adapters.
        """
        chosen = self.adapters if adapters is None else tuple(adapters)
        sequence = int(self._native.create(list(chosen)))
        self._sequence_adapters[sequence] = chosen
        return sequence

    def adapters_of(self, sequence: int) -> tuple[int, ...]:
        """Return the adapters that a sequence was created with. Raises IndexError if it does not exist."""
        self.length(sequence)
        return self._sequence_adapters[sequence]

    def fork(self, sequence: int) -> int:
        """Copy a sequence in O(1): both share keys and values until one of them grows."""
        copy = int(self._native.fork(sequence))
        self._sequence_adapters[copy] = self._sequence_adapters[sequence]
        return copy

    def export_kv(
        self, sequence: int, positions: int | None = None, first: int = 0, *, windows: bool = True
    ) -> KvState:
        """Copy the keys and values of `positions` positions from `first` on, by default of all.

        Layers with an attention window give what they keep, up to the end, without `windows` nothing.
        """
        length = self.length(sequence)
        positions = length - first if positions is None else positions
        if not 0 <= first <= first + positions <= length:
            raise BadInput(f"positions must be 0..{length - first:,} from {first:,} on, got {positions:,}")
        end = first + positions
        start = int(self._native.windows_from(sequence, first, end)) if windows else end
        data = np.empty(self._state_bytes(first, end, start), np.uint8)
        self._native.export_kv(sequence, first, end, start, data)
        tokens = np.array(self._native.tokens(sequence, first, end), np.int32)
        return KvState(self.kv_geometry, positions, data, first, start, tokens)

    def import_kv(self, state: KvState, adapters: Sequence[int] | None = None) -> int:
        """Create a sequence from exported keys and values; it continues with the same bits.

        `adapters` are as in `new_sequence`, and must be those that the keys and values were computed with.
        Raises BadInput for the keys and values of another model, another type, or over the window.
        """
        sequence = self.new_sequence(adapters)
        try:
            self.append_kv(sequence, state)
        except BaseException:
            self.drop(sequence)
            raise
        return sequence

    def append_kv(self, sequence: int, state: KvState) -> None:
        """Continue a sequence with exported keys and values that follow its last position.

        Raises BadInput as `import_kv`.
        """
        length = self.length(sequence)
        if state.geometry != self.kv_geometry or state.first + state.positions > self.context:
            raise BadInput(
                f"these keys and values are {state.positions:,} positions of {state.geometry}; "
                f"wanted at most {self.context - state.first:,} of {self.kv_geometry}"
            )
        if state.first != length:
            raise BadInput(
                f"these keys and values begin at position {state.first:,}; the sequence ends at {length:,}"
            )
        end = state.first + state.positions
        start = state.first if state.windows_from is None else state.windows_from
        if not state.first <= start <= end or state.data.nbytes != self._state_bytes(state.first, end, start):
            raise BadInput(
                f"{state.positions:,} positions of keys and values do not have {state.data.nbytes:,} bytes"
            )
        tokens = np.full(state.positions, -1, np.int32) if state.tokens is None else state.tokens
        if tokens.shape != (state.positions,) or tokens.max(initial=0) >= self.config.vocab_size:
            raise BadInput(f"{state.positions:,} positions of keys and values do not have these tokens")
        data = np.ascontiguousarray(state.data)
        self._native.append_kv(sequence, np.ascontiguousarray(tokens, np.int32), start, data)

    @property
    def build(self) -> str:
        """A hash of the compiled engine: another build may round differently."""
        return hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()[:32]

    @property
    def position_bytes(self) -> int:
        """Bytes of the exported keys and values of one position."""
        return self._state_bytes(0, 1, 0)

    @property
    def windowed_bytes(self) -> int:
        """Bytes of those in layers with an attention window."""
        return self.position_bytes - self._state_bytes(0, 1, 1)

    def _state_bytes(self, first: int, end: int, windows_from: int) -> int:
        full, windowed = (int(self._native.position_bytes(of_windows)) for of_windows in (False, True))
        return (end - first) * full + (end - windows_from) * windowed

    @property
    def kv_geometry(self) -> str:
        """The shape and type of exported keys and values."""
        heads = f"{self.config.n_kv_head} heads of {self.config.head_dim}"
        return f"{self.config.n_layer} layers with {heads} in {self.kv}"

    def cancel_flag(self) -> _native.CancelFlag:
        """Return a new flag for `forward`."""
        return _native.CancelFlag()

    def truncate(self, sequence: int, length: int) -> None:
        """Remove everything after the first `length` positions.

        Where the next position sees keys and values in attention windows that were freed, the next call
        computes them again first, from `resumable` positions on.
        """
        self._native.truncate(sequence, length)

    def resumable(self, sequence: int, length: int) -> int:
        """Return the most positions, up to `length`, after which nothing has to be computed again."""
        return int(self._native.resumable(sequence, length))

    def forget_windows(self, sequence: int) -> None:
        """Free what a sequence keeps of layers with an attention window, where it can be computed again."""
        self._native.forget_windows(sequence)

    def drop(self, sequence: int) -> None:
        """Remove a sequence and free its memory."""
        self._native.drop(sequence)
        self._sequence_adapters.pop(sequence, None)

    def length(self, sequence: int) -> int:
        """Return the number of positions in a sequence."""
        return int(self._native.length(sequence))
