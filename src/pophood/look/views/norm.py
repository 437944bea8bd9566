"""Norm: what a layer norm does to each token by itself: before, normalised, after gain and shift.

The talk's pages 24 and 31. Mean 0 and variance 1 hold in the middle, before gain and shift; an RMS norm
(Zhang and Sennrich 2019) subtracts no mean and brings the root mean square to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pophood.look.arguments import checked_index, checked_name, trace_text
from pophood.look.blocks import Block
from pophood.look.source import PROMPT
from pophood.look.view import View
from pophood.table import Table

if TYPE_CHECKING:
    from pophood.model.lm import LM

Which = Literal["ln_1", "ln_2", "final"]
WHICH: tuple[Which, ...] = ("ln_1", "ln_2", "final")
STAGES = ("before", "normalised", "after")
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, eq=False)
class NormView(View):
    """One norm at work: the same tokens before it, normalised, and after gain and shift."""

    which: Which
    layer: int | None  # None: the final norm
    kind: Literal["layer", "rms"]
    epsilon: float
    before: NDArray[np.float32]  # [T, C]
    normalised: NDArray[np.float32]  # [T, C]
    after: NDArray[np.float32]  # [T, C]
    gain: NDArray[np.float32]  # [C]
    shift: NDArray[np.float32] | None  # [C]; None: this norm has none

    name = "norm"

    @property
    def stages(self) -> tuple[NDArray[np.float32], ...]:
        """The three, in the order of STAGES."""
        return (self.before, self.normalised, self.after)

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over the features of every token at every stage: [3, T]."""
        return np.stack([stage.mean(axis=-1, dtype=np.float64) for stage in self.stages])

    @property
    def variances(self) -> NDArray[np.float64]:
        """Variance over the features: [3, T]."""
        return np.stack([stage.astype(np.float64).var(axis=-1) for stage in self.stages])

    @property
    def mean_squares(self) -> NDArray[np.float64]:
        """Mean of the squared features: [3, T]."""
        return np.stack([np.square(stage.astype(np.float64)).mean(axis=-1) for stage in self.stages])

    @property
    def place(self) -> str:
        """Which norm this is, in words."""
        if self.layer is None:
            return "the final norm"
        where = "attention" if self.which == "ln_1" else "feed-forward"
        return f"{self.which} of block {self.layer}, before its {where}"

    @property
    def headline(self) -> str:
        """What the norm does, and which one it is."""
        if self.kind == "rms":
            return f"RMS norm ({self.place}): every token is scaled to root mean square 1, then gain"
        return f"Layer norm ({self.place}): every token gets mean 0 and variance 1, then gain and shift"

    @property
    def alt(self) -> str:
        """The statistics before, in the middle and after."""
        what, spread = ("root mean square", np.sqrt(self.mean_squares))
        if self.kind == "layer":
            what, spread = "variance", self.variances
        parts = [
            f"{stage}: mean {_span(self.means[i])}, {what} {_span(spread[i])}"
            for i, stage in enumerate(STAGES)
        ]
        return f"How the {self.before.shape[1]:,} features of each token are spread. {'; '.join(parts)}."

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the talk's sentence holds, and what epsilon does."""
        if self.kind == "rms":
            return (
                "This model has RMS norms: no mean is subtracted, so the mean is not 0; the root mean square "
                "is 1 before the gain. There is no shift.",
                f"Under the root stands the mean square plus epsilon = {self.epsilon:g}: tiny vectors stay "
                "a little below 1.",
            )
        return (
            "Mean 0 and variance 1 hold before gain and shift (the row in the middle): afterwards each "
            "feature has been multiplied by a learned gain and moved by a learned shift.",
            f"Under the root stands the variance plus epsilon = {self.epsilon:g}, so that the variance comes "
            "out a little below 1 for tokens whose own variance is tiny.",
        )

    def tables(self) -> dict[str, Table]:
        """`statistics`: three rows per token; `parameters`: the learned gain and shift."""
        rows = tuple(
            (
                position,
                token,
                stage,
                float(self.means[i, position]),
                float(self.variances[i, position]),
                float(np.sqrt(self.mean_squares[i, position])),
            )
            for position, token in enumerate(self.source.tokens)
            for i, stage in enumerate(STAGES)
        )
        columns = ("position", "token_text", "stage", "mean", "variance", "root_mean_square")
        learned = [("gain", self.gain)] + ([("shift", self.shift)] if self.shift is not None else [])
        parameters = tuple(
            (name, len(values), float(values.mean()), float(values.min()), float(values.max()))
            for name, values in learned
        )
        return {
            "statistics": Table(
                columns, rows, title=f"over {self.before.shape[1]:,} features, token by token"
            ),
            "parameters": Table(("learned", "numbers", "mean", "smallest", "largest"), parameters),
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """`before`, `normalised`, `after` [token, feature]; `gain` and `shift` [feature]."""
        found: dict[str, NDArray[np.generic]] = dict(zip(STAGES, self.stages, strict=True))
        found["gain"] = self.gain
        return found | ({"shift": self.shift} if self.shift is not None else {})

    def picture(self) -> tuple[Block, ...]:
        """Both tables."""
        return tuple(self.tables().values())

    def quantiles(self, stage: int) -> NDArray[np.float64]:
        """QUANTILES of every token's features at a stage: [5, T]."""
        return np.asarray(np.quantile(self.stages[stage].astype(np.float64), QUANTILES, axis=-1))


def norm(lm: LM, text: str = PROMPT, *, layer: int = 0, which: str = "ln_1") -> NormView:
    """One norm of the model: `which` is "ln_1" (before attention), "ln_2" (before feed-forward) or "final".

    `layer` counts from 0, -1 is the last; it means nothing for "final". Arrays are [tokens, features]. Raises
    BadInput for a norm or a layer that does not exist.

        norm(lm, layer=3).variances[1]      # of the normalised rows: 1, 1, 1, ...
    """
    kind: Which = next(name for name in WHICH if name == checked_name("norm", which, WHICH))
    index = checked_index("layer", layer, lm.config.n_layer, lm.name)
    before, place = {
        "ln_1": (f"blocks.{index}.resid_pre", f"blocks.{index}.ln_1"),
        "ln_2": (f"blocks.{index}.resid_mid", f"blocks.{index}.ln_2"),
        "final": (f"blocks.{lm.config.n_layer - 1}.resid_post", "final_norm"),
    }[kind]
    source, trace = trace_text(lm, text, [before, f"{place}.normalized", place])
    shift = lm.weights[f"{place}.bias"] if lm.config.norm == "layer" else None
    return NormView(
        source,
        kind,
        None if kind == "final" else index,
        lm.config.norm,
        lm.config.norm_eps,
        trace[before],
        trace[f"{place}.normalized"],
        trace[place],
        lm.weights[f"{place}.weight"],
        shift,
    )


def _span(values: NDArray[np.float64]) -> str:
    """Smallest and largest for a sentence; one number where both read the same."""
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    low, high = low.replace("-0.00", "0.00"), high.replace("-0.00", "0.00")
    return low if low == high else f"{low} to {high}"
