"""Trace: the intermediate arrays of one forward pass by name, with named axes, and their memory beforehand.

Users call `LM.trace`. The names are those of `pophood.taps` (docs/taps.md).
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
    """The taps of a trace and their memory, known before it is made: `sizes` maps a tap's name to bytes."""

    taps: tuple[Tap, ...]
    sizes: dict[str, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(self.sizes.values())

    def describe(self) -> str:
        """Return number and size in one line: "298 arrays, 396.0 MiB"."""
        return f"{len(self.sizes):,} arrays, {self.nbytes / 2**20:,.1f} MiB"


@dataclass(frozen=True, slots=True)
class Trace:
    """The intermediate arrays of a forward pass over the tokens `ids`.

    `trace["blocks.0.attn.pattern"]` is [H, T, T]: the weight of every query on every key, exactly 0 where
    masked (scores: minus infinity). `axes` names the dimensions. `logits` is [T, V] if its tap was requested.

        trace = lm.trace("The capital of Spain is", taps=["blocks.*.attn.pattern"])
        trace.layers("attn.pattern").shape                          # (L, H, T, T)
    """

    ids: tuple[int, ...]
    arrays: dict[str, NDArray[np.float32]]
    _axes: dict[str, Axes]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        return self.arrays[self._known(name)]

    def axes(self, name: str) -> Axes:
        """Return the names of an array's dimensions, such as ("head", "query", "key")."""
        return self._axes[self._known(name)]

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits after every token: [T, V]."""
        return self["logits"]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(array.nbytes for array in self.arrays.values())

    def layers(self, name: str) -> NDArray[np.float32]:
        """Stack one tap of all blocks into a new array: `layers("resid_post")` is [L, T, C]."""
        arrays = [array for key, array in self.arrays.items() if _inside_block(key) == name]
        if not arrays:
            raise BadInput(f"the trace has no tap {name!r} in its blocks; it has: {self._names()}")
        return np.stack(arrays)

    def _known(self, name: str) -> str:
        canonical = alias(name)
        if canonical not in self.arrays:
            raise BadInput(f"the trace has no array {name!r}; it has: {self._names()}")
        return canonical

    def _names(self) -> str:
        names = list(self.arrays)
        return ", ".join(names if len(names) <= 8 else [*names[:4], "…", *names[-3:]]) or "nothing"


def plan_trace(config: ModelConfig, tokens: int, taps: Sequence[str] = ALL) -> TracePlan:
    """Plan a trace over `tokens` tokens; `taps` as in `match_taps`."""
    matched = match_taps(config, taps)
    return TracePlan(tuple(matched), {tap.name: tap.nbytes(tokens, tokens) for tap in matched})


def trace(
    engine: Engine, ids: Sequence[int], taps: Sequence[str] = ALL, cancel: CancelFlag | None = None
) -> Trace:
    """Run the model over `ids` once and keep the arrays of the taps.

    Raises BadInput for a tap that does not exist, ContextOverflow for a text that is too long, and
    OutOfMemory, before anything is computed, for arrays that do not fit into memory.
    """
    plan = plan_trace(engine.config, len(ids), taps)
    if plan.nbytes > (free := system.available_memory()):
        largest = sorted(plan.sizes, key=plan.sizes.__getitem__)[-1]
        raise OutOfMemory(
            f"the trace would take {plan.describe()}; {free / 2**20:,.1f} MiB is free: shorten the text, "
            f"or request fewer taps ('!{_any_block(largest)}' leaves out the largest)"
        )
    with engine.sequence() as sequence:
        forward = engine.forward([(sequence, ids)], output="none", taps=plan.taps, cancel=cancel)
    arrays, axes = forward.taps, {tap.name: tap.axes for tap in plan.taps}
    for tap in plan.taps:
        if tap.axes[-1] == "key":  # the engine computes [query, head, key]
            arrays[tap.name] = arrays[tap.name].transpose(1, 0, 2)
            axes[tap.name] = ("head", "query", "key")
    return Trace(tuple(ids), arrays, axes)


def _inside_block(name: str) -> str:
    return name.split(".", 2)[2] if name.startswith("blocks.") else ""


def _any_block(name: str) -> str:
    return f"blocks.*.{_inside_block(name)}" if name.startswith("blocks.") else name
