"""Edit: a change of an intermediate array while a forward pass computes, at the names of `pophood.taps`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pophood.config import ModelConfig
from pophood.errors import BadInput
from pophood.taps import PAIR, Tap, match_taps

Kind = Literal["add", "scale", "replace"]
NativeEdit = tuple[int, int, int, int, NDArray[np.int64], NDArray[np.float32], int]

_KINDS: dict[str, int] = {"add": 0, "scale": 1, "replace": 2}
_HEAD_AXES = ("head", "kv_head")


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one tap, or of all taps that a wildcard matches, before later steps see its values.

    `value` is added, multiplied or put in place: a number, or an array with the tap's axes (docs/taps.md)
    without "token", and without the head if `head` selects one; with one more axis in front it has a value
    per position. `positions` count in each sequence from its beginning; None edits every token of the call.
    `sequence` restricts the edit to one sequence of a batch. The default replaces by 0, which switches a head
    or a neuron off. Keys and values keep an edit's effect for later calls. Raises BadInput when it is used.

        engine.forward([(sequence, ids)], edits=[Edit("blocks.5.attn.z", head=3)])
    """

    tap: str
    kind: Kind = "replace"
    value: ArrayLike = 0.0
    head: int | None = None
    positions: Sequence[int] | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class PreparedEdit:
    """One edit of one tap in one call: `place` [N] is each row's index in `values`, -1 where none applies."""

    tap: Tap
    kind: int
    head: int
    place: NDArray[np.int64]
    values: NDArray[np.float32]  # [1 or positions, width]
    keys: int

    def rows(self, start: int, stop: int) -> NativeEdit | None:
        """Return what the engine takes for rows start..stop-1 of the call; None if none is edited."""
        place = self.place[start:stop]
        rows = np.flatnonzero(place >= 0)
        if not len(rows):
            return None
        values = self.values if len(self.values) == 1 else self.values[place[rows]]
        return self.tap.number, self.tap.layer, self.kind, self.head, rows, values, self.keys


def prepare(
    config: ModelConfig,
    edits: Sequence[Edit],
    sequences: NDArray[np.int64],
    positions: NDArray[np.int64],
    keys: int,
) -> list[PreparedEdit]:
    """Check edits against a model and a call: each row's sequence and position [N], the longest sequence."""
    return [
        _prepared(edit, tap, sequences, positions, keys)
        for edit in edits
        for tap in match_taps(config, [edit.tap])
    ]


def _prepared(
    edit: Edit, tap: Tap, sequences: NDArray[np.int64], positions: NDArray[np.int64], keys: int
) -> PreparedEdit:
    if edit.kind not in _KINDS:
        raise BadInput(f"an edit's kind is {edit.kind!r}; wanted one of {', '.join(_KINDS)}")
    wanted = (
        np.arange(positions.max() + 1) if edit.positions is None else np.asarray(edit.positions, np.int64)
    )
    if wanted.ndim != 1 or (len(wanted) and wanted.min() < 0):
        raise BadInput(f"an edit's positions are {edit.positions!r}; wanted a list of numbers from 0 on")
    place = np.full(int(max(positions.max(), wanted.max(initial=0))) + 1, -1, np.int64)
    place[wanted] = np.arange(len(wanted))
    row_places = place[positions]
    if edit.sequence is not None:
        row_places[sequences != edit.sequence] = -1
    shape = _row_shape(edit, tap, keys)
    values = _values(edit, tap, shape, len(wanted))
    if len(values) == 1:
        row_places[row_places >= 0] = 0
    head = -1 if edit.head is None else edit.head
    return PreparedEdit(tap, _KINDS[edit.kind], head, row_places, values, keys if tap.axes == PAIR else 0)


def _row_shape(edit: Edit, tap: Tap, keys: int) -> tuple[int, ...]:
    """Return the shape of one row's value: without "token", and without the head if one is chosen."""
    shape = tap.shape(1, keys)[1:]
    if edit.head is None:
        return shape
    if tap.axes[1] not in _HEAD_AXES:
        raise BadInput(f"{tap.name} has no heads; leave `head` out of its edit")
    if not 0 <= edit.head < shape[0]:
        raise BadInput(f"{tap.name} has heads 0..{shape[0] - 1}; got {edit.head}")
    return shape[1:]


def _values(edit: Edit, tap: Tap, shape: tuple[int, ...], positions: int) -> NDArray[np.float32]:
    """Return [1 or positions, width]."""
    given: NDArray[Any] = np.asarray(edit.value, np.float32)
    whole = shape if given.ndim <= len(shape) else (positions, *shape)
    try:
        values = np.broadcast_to(given, whole)
    except ValueError:
        raise BadInput(
            f"the value of an edit of {tap.name} has shape {given.shape}; "
            f"wanted a number, {shape}, or one of these per position"
        ) from None
    rows = 1 if len(whole) == len(shape) else positions
    return np.ascontiguousarray(values.reshape(rows, -1))
