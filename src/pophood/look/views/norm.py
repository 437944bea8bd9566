"""Norm: the effect of a layer norm on each token: before, normalised, after gain and shift.

The talk's pages 24 and 31. Mean 0 and variance 1 hold in the middle, before gain and shift; an RMS norm
(Zhang and Sennrich 2019) does not subtract the mean and scales the root mean square to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.look.arguments import checked_index, checked_name, trace_text
from pophood.look.source import PROMPT, ViewSource
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.phrases import later, phrase
from pophood.table import Table

Floats = NDArray[np.float32]
Which = Literal["ln_1", "ln_1_post", "ln_2", "ln_2_post", "final"]
WHICH: tuple[Which, ...] = ("ln_1", "ln_1_post", "ln_2", "ln_2_post", "final")
STAGES = (later("before"), later("normalised"), later("after"))
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True, eq=False)
class NormView(View):
    """Tokens before a norm, normalised, and after gain and shift."""

    which: Which
    layer: int | None  # None: the final norm
    kind: Literal["layer", "rms"]
    epsilon: float
    before: NDArray[np.float32]  # [T, C]
    normalised: NDArray[np.float32]  # [T, C]
    after: NDArray[np.float32]  # [T, C]
    gain: NDArray[np.float32]  # [C]
    shift: NDArray[np.float32] | None  # [C]; None for an RMS norm
    array_names = ("before", "normalised", "after", "gain", "shift")

    @property
    def stages(self) -> tuple[NDArray[np.float32], ...]:
        """The three arrays in the order of STAGES."""
        return (self.before, self.normalised, self.after)

    @property
    def means(self) -> NDArray[np.float64]:
        """The mean over the features of every token at every stage: [3, T]."""
        return np.stack([stage.mean(axis=-1, dtype=np.float64) for stage in self.stages])

    @property
    def variances(self) -> NDArray[np.float64]:
        """The variance over the features: [3, T]."""
        return np.stack([stage.astype(np.float64).var(axis=-1) for stage in self.stages])

    @property
    def mean_squares(self) -> NDArray[np.float64]:
        """The mean of the squared features: [3, T]."""
        return np.stack([np.square(stage.astype(np.float64)).mean(axis=-1) for stage in self.stages])

    @property
    def place(self) -> str:
        """The norm's place in the model, in words."""
        if self.layer is None:
            return phrase("the final norm")
        places = {
            "ln_1": later("{norm} of block {block}, before its attention"),
            "ln_1_post": later("{norm} of block {block}, after its attention"),
            "ln_2": later("{norm} of block {block}, before its feed-forward"),
            "ln_2_post": later("{norm} of block {block}, after its feed-forward"),
        }
        return phrase(places[self.which], norm=self.which, block=self.layer)

    @property
    def headline(self) -> str:
        if self.kind == "rms":
            return phrase(
                "RMS norm ({place}): every token is scaled to root mean square 1, then gain", place=self.place
            )
        return phrase(
            "Layer norm ({place}): every token gets mean 0 and variance 1, then gain and shift",
            place=self.place,
        )

    @property
    def alt(self) -> str:
        what, spread = phrase("variance"), self.variances
        if self.kind == "rms":
            what, spread = phrase("root mean square"), np.sqrt(self.mean_squares)
        measured = zip(STAGES, self.means, spread, strict=True)
        parts = [
            phrase(
                "{stage}: mean {means}, {what} {sizes}",
                stage=phrase(stage),
                means=_span(mean),
                what=what,
                sizes=_span(size),
            )
            for stage, mean, size in measured
        ]
        return phrase(
            "The spread of the {features:,} features of each token. {parts}.",
            features=self.before.shape[1],
            parts="; ".join(parts),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        if self.kind == "rms":
            return (
                phrase(
                    "This model has RMS norms: the mean is not subtracted, so it is not 0; the "
                    "root mean square is 1 before the gain. There is no shift."
                ),
                phrase(
                    "The divisor is the root of the mean square plus epsilon = {epsilon:g}, so "
                    "that tiny vectors come out a little below 1.",
                    epsilon=self.epsilon,
                ),
            )
        return (
            phrase(
                "Mean 0 and variance 1 hold before gain and shift (the row in the middle), "
                "which multiply each feature by a learned gain and add a learned shift."
            ),
            phrase(
                "The divisor is the root of the variance plus epsilon = {epsilon:g}, so that "
                "the variance comes out a little below 1 for tokens whose own variance is tiny.",
                epsilon=self.epsilon,
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `statistics` (three rows per token) and `parameters` (the learned gain and shift)."""
        measured = (self.means, self.variances, np.sqrt(self.mean_squares))
        rows = tuple(
            (position, token, phrase(stage), *(float(values[i, position]) for values in measured))
            for position, token in enumerate(self.source.tokens)
            for i, stage in enumerate(STAGES)
        )
        columns = ("position", "token_text", "stage", "mean", "variance", "root_mean_square")
        learned = [(phrase("gain"), self.gain)] + (
            [(phrase("shift"), self.shift)] if self.shift is not None else []
        )
        parameters = tuple(
            (name, len(values), float(values.mean()), float(values.min()), float(values.max()))
            for name, values in learned
        )
        title = phrase("over {features:,} features, token by token", features=self.before.shape[1])
        return {
            "statistics": Table(columns, rows, title=title),
            "parameters": Table(("learned", "numbers", "mean", "smallest", "largest"), parameters),
        }

    def quantiles(self, stage: int) -> NDArray[np.float64]:
        """Return the QUANTILES of every token's features at a stage: [5, T]."""
        return np.asarray(np.quantile(self.stages[stage].astype(np.float64), QUANTILES, axis=-1))


def norm(lm: LM, text: Text = PROMPT, *, layer: int = 0, which: str | None = None) -> NormView:
    """Show one norm: `which` is "ln_1" (before attention), "ln_2" (before feed-forward) or "final".

    Models with norms after them have "ln_1_post" and "ln_2_post"; the default is the block's first norm.
    `layer` counts from 0, -1 is the last; "final" ignores it. Arrays are [tokens, features]. Raises BadInput
    for a norm or a layer that does not exist.

        norm(lm, layer=3).variances[1]      # of the normalised rows: 1, 1, 1, ...
    """
    config, known = lm.config, norms_of(lm.config)
    kind: Which = known[known.index(checked_name("norm", which or known[0], known))]
    index = checked_index("layer", layer, config.n_layer, lm.name)
    place = "final_norm" if kind == "final" else f"blocks.{index}.{kind}"
    gain = lm.weights[f"{place}.weight"]
    shift = lm.weights[f"{place}.bias"] if config.norm == "layer" else None
    if kind in ("ln_1_post", "ln_2_post"):
        source, before, normalised = _after_sublayer(lm, text, index, kind)
        after = normalised * gain + (0 if shift is None else shift)
    else:
        entering = f"blocks.{index}.resid_pre" if config.parallel else f"blocks.{index}.resid_mid"
        stream = {"ln_1": f"blocks.{index}.resid_pre", "ln_2": entering}
        read = stream.get(kind, f"blocks.{config.n_layer - 1}.resid_post")
        source, trace = trace_text(lm, text, [read, f"{place}.normalized", place])
        before, normalised, after = trace[read], trace[f"{place}.normalized"], trace[place]
    number = None if kind == "final" else index
    return NormView(
        source, kind, number, config.norm, config.norm_eps, before, normalised, after, gain, shift
    )


def norms_of(config: ModelConfig) -> tuple[Which, ...]:
    """Return the names of the norms of a block, in order, and "final".

    Example: `norms_of(gpt2) == ("ln_1", "ln_2", "final")`.
    """
    absent = {"before": ("ln_1_post", "ln_2_post"), "after": ("ln_1", "ln_2"), "both": ()}[config.norm_places]
    return tuple(name for name in WHICH if name not in absent)


def _after_sublayer(lm: LM, text: Text, layer: int, kind: Which) -> tuple[ViewSource, Floats, Floats]:
    """Compute what a norm after attention or feed-forward reads, and the normalised rows, [T, C] each."""
    block, tap, name = f"blocks.{layer}", "attn.z", "attn.out"
    if kind == "ln_2_post":
        tap, name = "mlp.post", "mlp.down"
    source, trace = trace_text(lm, text, [f"{block}.{tap}"])
    inner = trace[f"{block}.{tap}"].reshape(len(source.ids), -1)
    before = inner @ lm.weights[f"{block}.{name}.weight"].T
    bias = lm.weights.get(f"{block}.{name}.bias")
    rows = (before if bias is None else before + bias).astype(np.float64)
    centred = rows - rows.mean(axis=-1, keepdims=True) if lm.config.norm == "layer" else rows
    root = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + lm.config.norm_eps)
    return source, rows.astype(np.float32), (centred / root).astype(np.float32)


def _span(values: NDArray[np.float64]) -> str:
    """Format the smallest and largest value; one number if both round to the same."""
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    low, high = low.replace("-0.00", "0.00"), high.replace("-0.00", "0.00")
    return low if low == high else phrase("{low} to {high}", low=low, high=high)
