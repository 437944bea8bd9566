"""Trace: one forward pass written down: named arrays with named axes, and the logits. Memory comes first.

`LM.trace` is how it is called; the names are those of `pophood.taps` (docs/taps.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood import system
from pophood.config import ModelConfig
from pophood.errors import BadInput, OutOfMemory
from pophood.model.engine import CancelFlag, Engine
from pophood.taps import Axes, Tap, alias, match_taps

ALL = ("*",)


@dataclass(frozen=True, slots=True)
class TracePlan:
    """What a trace will hold, known before it is made: tap name -> bytes."""

    sizes: dict[str, int]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays together."""
        return sum(self.sizes.values())

    def describe(self) -> str:
        """One line for people: "298 arrays, 396.0 MiB"."""
        return f"{len(self.sizes):,} arrays, {self.nbytes / 2**20:,.1f} MiB"


@dataclass(frozen=True, slots=True)
class Trace:
    """What a forward pass computed on the way.

    `trace["blocks.0.attn.pattern"]` is [H, T, T]: weights of every query on every key, masked ones exactly 0
    (scores: minus infinity). `axes` names the dimensions. `logits` is [T, V] where it was asked for.

        trace = lm.trace("The capital of Spain is", taps=["blocks.*.attn.pattern"])
        trace.layers("attn.pattern").shape                          # (L, H, T, T)
    """

    ids: tuple[int, ...]
    arrays: dict[str, NDArray[np.float32]]
    _axes: dict[str, Axes]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.arrays[self._known(name)]

    def axes(self, name: str) -> Axes:
        """The names of an array's dimensions, such as ("head", "query", "key")."""
        return self._axes[self._known(name)]

    @property
    def logits(self) -> NDArray[np.float32]:
        """The raw scores of the vocabulary after every token: [T, V]."""
        return self["logits"]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays together."""
        return sum(array.nbytes for array in self.arrays.values())

    def layers(self, name: str) -> NDArray[np.float32]:
        """One tap over all blocks, stacked: `layers("resid_post")` is [L, T, C]. A copy."""
        found = [array for key, array in self.arrays.items() if _inside_block(key) == name]
        if not found:
            raise BadInput(f"the trace has no tap {name!r} in its blocks; it has: {self._held()}")
        return np.stack(found)

    def _known(self, name: str) -> str:
        canonical = alias(name)
        if canonical not in self.arrays:
            raise BadInput(f"the trace does not hold {name!r}; it holds: {self._held()}")
        return canonical

    def _held(self) -> str:
        names = list(self.arrays)
        return ", ".join(names if len(names) <= 8 else [*names[:4], "…", *names[-3:]]) or "nothing"


def plan_trace(config: ModelConfig, tokens: int, taps: Sequence[str] = ALL) -> TracePlan:
    """The memory that a trace of a text of `tokens` tokens takes; `taps` as in `match_taps`."""
    return TracePlan({tap.name: tap.nbytes(tokens, tokens) for tap in match_taps(config, taps)})


def trace(
    engine: Engine, ids: Sequence[int], taps: Sequence[str] = ALL, cancel: CancelFlag | None = None
) -> Trace:
    """Run the model over `ids` once and keep what the taps name.

    Raises BadInput for a tap that does not exist, OutOfMemory before computing when it would not fit,
    ContextOverflow for a text that is too long.
    """
    plan = plan_trace(engine.config, len(ids), taps)
    if plan.nbytes > (free := system.available_memory()):
        largest = sorted(plan.sizes, key=plan.sizes.__getitem__)[-1]
        raise OutOfMemory(
            f"the trace would take {plan.describe()}; {free / 2**20:,.1f} MiB is free: shorten the text, "
            f"or ask for fewer taps ('!{_any_block(largest)}' leaves out the largest)"
        )
    sequence = engine.new_sequence()
    try:
        forward = engine.forward([(sequence, ids)], output="none", taps=taps, cancel=cancel)
    finally:
        engine.drop(sequence)
    matched = match_taps(engine.config, taps)
    return Trace(
        tuple(ids),
        {tap.name: _turned(tap, forward.taps[tap.name]) for tap in matched},
        {tap.name: _axes(tap) for tap in matched},
    )


def _axes(tap: Tap) -> Axes:
    return ("head", "query", "key") if tap.axes[-1] == "key" else tap.axes


def _turned(tap: Tap, values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values.transpose(1, 0, 2) if tap.axes[-1] == "key" else values


def _inside_block(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blocks.") else ""


def _any_block(name: str) -> str:
    return f"blocks.*.{_inside_block(name)}" if name.startswith("blocks.") else name
