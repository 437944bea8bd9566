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

    def export_kv(self, sequence: int, positions: int | None = None, first: int = 0) -> KvState:
        """Copy the keys and values of `positions` positions from `first` on, by default of all."""
        length = self.length(sequence)
        positions = length - first if positions is None else positions
        if not 0 <= first <= first + positions <= length:
            raise BadInput(f"positions must be 0..{length - first:,} from {first:,} on, got {positions:,}")
        data = np.empty(positions * self.position_bytes, np.uint8)
        self._native.export_kv(sequence, first, data)
        return KvState(self.kv_geometry, positions, data, first)

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
        if state.data.nbytes != state.positions * self.position_bytes:
            raise BadInput(
                f"{state.positions:,} positions of keys and values do not have {state.data.nbytes:,} bytes"
            )
        self._native.append_kv(sequence, np.ascontiguousarray(state.data))

    @property
    def build(self) -> str:
        """A hash of the compiled engine: another build may round differently."""
        return hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest()[:32]

    @property
    def position_bytes(self) -> int:
        """Bytes of the keys and values of one position."""
        return int(self._native.position_bytes())

    @property
    def kv_geometry(self) -> str:
        """The shape and type of exported keys and values."""
        heads = f"{self.config.n_kv_head} heads of {self.config.head_dim}"
        return f"{self.config.n_layer} layers with {heads} in {self.kv}"

    def cancel_flag(self) -> _native.CancelFlag:
        """Return a new flag for `forward`."""
        return _native.CancelFlag()

    def truncate(self, sequence: int, length: int) -> None:
        """Remove everything after the first `length` positions."""
        self._native.truncate(sequence, length)

    def drop(self, sequence: int) -> None:
        """Remove a sequence and free its memory."""
        self._native.drop(sequence)
        self._sequence_adapters.pop(sequence, None)

    def length(self, sequence: int) -> int:
        """Return the number of positions in a sequence."""
        return int(self._native.length(sequence))
