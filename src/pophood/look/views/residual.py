"""Residual: what each sublayer adds to the stream: X_new = X + dX, for attention and then for feed-forward.

The talk's page 25. The additions are checked, not assumed: `errors` holds the deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.look.arguments import trace_text
from pophood.look.blocks import Block, Heat
from pophood.look.source import PROMPT, model_title
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.model.trace import Trace
from pophood.phrases import later, phrase
from pophood.table import Table, count

Floats = NDArray[np.float32]
Reals = NDArray[np.float64]
Measured = tuple[Reals, Reals, Reals, float, float]
SUBLAYERS = (later("attention"), later("feed-forward"))
_STEPS = (("resid_pre", "attn.out", "resid_mid"), ("resid_mid", "mlp.out", "resid_post"))
_SIDE_BY_SIDE = ("attn.out", "mlp.out")  # both read resid_pre, in models with a parallel feed-forward


@dataclass(frozen=True, eq=False)
class ResidualView(View):
    """The lengths of X and dX at every sublayer, and their cosine. The first axis is SUBLAYERS."""

    stream: Floats  # [2, L, T]: length of X before the sublayer
    added: Floats  # [2, L, T]: length of dX
    cosine: Floats  # [2, L, T]: between dX and X
    errors: Floats  # [2, L]: largest |X + dX - X_new|
    largest: float  # the largest number in any X_new, for comparison with the errors
    parallel: bool  # attention and feed-forward read the same X, and X_new = X + both
    array_names = ("stream", "added", "share", "cosine")

    @property
    def share(self) -> Floats:
        """The length of dX divided by the length of X: [2, L, T]."""
        return np.asarray(self.added / np.maximum(self.stream, np.float32(1e-30)), np.float32)

    @property
    def headline(self) -> str:
        name = model_title(self.source.model)
        return phrase(
            "What each sublayer of {model} adds: the size of dX beside X in X_new = X + dX", model=name
        )

    @property
    def alt(self) -> str:
        parts = []
        for name, share, cosine in zip(SUBLAYERS, self.share, self.cosine, strict=True):
            median, angles = np.median(share, axis=1), np.median(cosine, axis=1)
            top = int(median.argmax())
            parts.append(
                phrase(
                    "{name} adds most in block {top}, {most:.2f} times the length of X (median of "
                    "the tokens), and least in block {bottom}, {least:.2f} times; its cosine with "
                    "X runs from {lowest:.2f} to {highest:.2f}",
                    name=phrase(name),
                    top=top,
                    most=median[top],
                    bottom=int(median.argmin()),
                    least=median.min(),
                    lowest=angles.min(),
                    highest=angles.max(),
                )
            )
        return phrase(
            "Over {blocks}: {parts}. {sums}",
            blocks=count(self.share.shape[1], "block"),
            parts="; ".join(parts),
            sums=self._sums,
        )

    @property
    def _sums(self) -> str:
        what = phrase("X + dX of attention + dX of feed-forward") if self.parallel else "X + dX"
        return phrase(
            "{what} equals X_new within {error:.1e} (the largest number in the stream is {largest:,.1f}).",
            what=what,
            error=self.errors.max(),
            largest=self.largest,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        both = phrase("Attention and feed-forward of a block read the same X, and both are added to it.")
        return (
            self._sums,
            *([both] if self.parallel else []),
            phrase(
                "Share: length of dX divided by length of X. Cosine: dX lengthens X at 1, adds "
                "a new direction at 0, and shortens X at -1. Lines and table show the median "
                "of the tokens, since the first one is often far longer; the colours cover the "
                "range of the other tokens."
            ),
        )

    def tables(self) -> dict[str, Table]:
        """Return `layers` (medians per block) and `tokens` (every token at every sublayer)."""
        columns: list[str] = ["layer", "sublayer", "x_length", "dx_length", "share", "cosine", "sum_error"]
        layers, tokens = [], []
        for layer in range(self.share.shape[1]):
            for s, name in enumerate(SUBLAYERS):
                at = (s, layer)
                parts = (self.stream[at], self.added[at], self.share[at], self.cosine[at])
                medians = (float(np.median(part)) for part in parts)
                layers.append((layer, phrase(name), *medians, f"{self.errors[at]:.1e}"))
                tokens += [
                    (layer, phrase(name), position, token, *(float(part[position]) for part in parts))
                    for position, token in enumerate(self.source.tokens)
                ]
        places = {"x_length": 2, "dx_length": 2, "share": 3, "cosine": 3}
        by_token = (*columns[:2], "position", "token_text", *columns[2:6])
        return {
            "layers": Table(
                tuple(columns), tuple(layers), title=phrase("median of the tokens"), decimals=places
            ),
            "tokens": Table(by_token, tuple(tokens), decimals=places),
        }

    def picture(self) -> tuple[Block, ...]:
        blocks = tuple(str(i) for i in range(self.share.shape[1]))
        colours = (*self.limits(), phrase("log10 of length of dX / length of X"), True)
        heats = (
            Heat(
                phrase("What {name} adds", name=phrase(name)),
                self.log_share(s),
                self.source.tokens,
                blocks,
                *colours,
            )
            for s, name in enumerate(SUBLAYERS)
        )
        return (self.tables()["layers"], *heats)

    def log_share(self, sublayer: int) -> Floats:
        """Return the base-10 logarithm of the share for pictures, [T, L]; 0 where dX is as long as X."""
        return np.asarray(np.log10(np.maximum(self.share[sublayer].T, 1e-6)), np.float32)

    def limits(self) -> tuple[float, float]:
        """Return the ends of the colour scale: the range of all tokens but the first, which is an outlier."""
        shares = np.stack([self.log_share(s) for s in range(2)])
        reach = float(np.abs(shares[:, 1:] if shares.shape[1] > 1 else shares).max())
        return -reach, reach


def residual(lm: LM, text: Text = PROMPT) -> ResidualView:
    """Measure what attention and feed-forward add in every block, [2, layers, tokens].

    Raises BadInput for an empty text, ContextOverflow for one that is too long.

        residual(lm).errors.max()       # resid_pre + attn.out = resid_mid, + mlp.out = resid_post
    """
    parallel = lm.config.parallel
    names = dict.fromkeys(name for step in _STEPS for name in step if not (parallel and name == "resid_mid"))
    source, trace = trace_text(lm, text, [f"blocks.*.{name}" for name in names])
    blocks = range(lm.config.n_layer)
    if parallel:
        measured = [[_beside(trace, layer, change) for layer in blocks] for change in _SIDE_BY_SIDE]
    else:
        measured = [[_step(trace, layer, *step) for layer in blocks] for step in _STEPS]
    stream, added, cosine = (
        np.array([[step[i] for step in sublayer] for sublayer in measured], np.float32) for i in range(3)
    )
    errors = np.array([[step[3] for step in sublayer] for sublayer in measured], np.float32)
    largest = max(step[4] for sublayer in measured for step in sublayer)
    return ResidualView(source, stream, added, cosine, errors, largest, parallel)


def _step(trace: Trace, layer: int, before: str, change: str, after: str) -> Measured:
    """Measure X + dX = X_new."""
    x, dx = (trace[f"blocks.{layer}.{name}"].astype(np.float64) for name in (before, change))
    return _measured(x, dx, x + dx, trace[f"blocks.{layer}.{after}"])


def _beside(trace: Trace, layer: int, change: str) -> Measured:
    """Measure one dX of X + dX + dX = X_new."""
    x, *both = (trace[f"blocks.{layer}.{name}"].astype(np.float64) for name in ("resid_pre", *_SIDE_BY_SIDE))
    dx = both[_SIDE_BY_SIDE.index(change)]
    return _measured(x, dx, x + sum(both), trace[f"blocks.{layer}.resid_post"])


def _measured(x: Reals, dx: Reals, total: Reals, new: Floats) -> Measured:
    """Return lengths of X and dX and their cosine, [T] each; the sum's largest error; the largest result."""
    lengths, changes = np.linalg.norm(x, axis=1), np.linalg.norm(dx, axis=1)
    cosine = (x * dx).sum(axis=1) / np.maximum(lengths * changes, 1e-30)
    return lengths, changes, cosine, float(np.abs(total - new).max()), float(np.abs(new).max())
