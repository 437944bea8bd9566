"""Dropout, as a demonstration: activations of the running model, masked as training would mask them.

The talk's pages 22 and 26. Inference uses no dropout, and nothing here changes the model. Inverted dropout
(Srivastava et al. 2014, in the form that torch and GPT-2 use) zeroes a number with probability p and divides
the survivors by 1 - p, so that the mean over many masks is the number itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.look.arguments import checked_index, trace_text
from pophood.look.source import PROMPT
from pophood.look.view import View
from pophood.model.lm import LM, Text
from pophood.phrases import later, phrase
from pophood.table import Table

Floats = NDArray[np.float32]
MASKS = (1, 10, 100, 1_000, 10_000)  # numbers of masks whose average is measured
SHOWN = 64  # features in the picture

# The places of dropout in GPT-2's training, all with p = 0.1, and the names of the settings in config.json.
GPT2_PLACES = (
    (later("embedding"), later("token row + position row, before the first block"), "embd_pdrop"),
    (later("attention weights"), later("after the softmax, before the values are mixed"), "attn_pdrop"),
    (later("attention output"), later("before it is added to the residual stream"), "resid_pdrop"),
    (later("feed-forward output"), later("before it is added to the residual stream"), "resid_pdrop"),
)


@dataclass(frozen=True, eq=False)
class DropoutView(View):
    """One mask on real activations, and the average over many masks."""

    p: float
    seed: int
    layer: int
    before: Floats  # [T, C]: the output of attention
    mask: NDArray[np.bool_]  # [T, C]: True for survivors
    after: Floats  # [T, C]
    mean_errors: tuple[float, ...]  # of the average over MASKS masks: distance to `before` over its length
    learned_positions: bool  # as in GPT-2, whose places GPT2_PLACES lists
    same_twice: bool  # whether two runs of the model gave the same bits
    array_names = ("before", "mask", "after")

    @property
    def zeros(self) -> float:
        """The share of numbers that this mask zeroes."""
        return float(1.0 - self.mask.mean())

    @property
    def headline(self) -> str:
        return phrase(
            "Dropout as training would do it (p = {p:g}) on the attention output of block "
            "{layer}: a demonstration, since inference uses none",
            p=self.p,
            layer=self.layer,
        )

    @property
    def alt(self) -> str:
        return phrase(
            "Of {size:,} numbers one mask zeroes {zeros:.1%}; the survivors are divided by "
            "{p:g}. Averaged over {masks:,} masks, the last token's numbers differ from "
            "the originals by {error:.1%} of their length; after one mask, by {once:.0%}.",
            size=self.mask.size,
            zeros=self.zeros,
            p=1 - self.p,
            masks=MASKS[-1],
            error=self.mean_errors[-1],
            once=self.mean_errors[0],
        )

    @property
    def notes(self) -> tuple[str, ...]:
        where = (
            phrase(
                "The talk names two places, the outputs of attention and feed-forward before "
                "the residual; GPT-2 has two more in training, after the embedding and on the "
                "attention weights."
            )
            if self.learned_positions
            else phrase(
                "GPT-2 was trained with dropout; models such as Llama and Qwen are trained without it."
            )
        )
        same = phrase("gave the same bits") if self.same_twice else phrase("did NOT give the same bits")
        return (where, phrase("Inference uses no dropout: two runs of this text {same}.", same=same))

    def tables(self) -> dict[str, Table]:
        """Return `mask` (the effect of one), `average` (of many) and `places` (where GPT-2 has dropout)."""
        survivors = self.mask & (self.before != 0)
        scale = self.after[survivors] / self.before[survivors]
        facts = (
            (phrase("probability p"), self.p),
            (phrase("numbers"), self.mask.size),
            (phrase("zeroed"), int((~self.mask).sum())),
            (phrase("share of zeros"), self.zeros),
            (phrase("survivors are multiplied by"), float(scale.mean()) if scale.size else 0.0),
            (phrase("mean before"), float(self.before.mean(dtype=np.float64))),
            (phrase("mean after"), float(self.after.mean(dtype=np.float64))),
        )
        places = tuple(
            (phrase(place), phrase(where), setting, 0.1, phrase("none"))
            for place, where, setting in GPT2_PLACES
        )
        return {
            "mask": Table(("what", "value"), facts, title=phrase("one mask, seed {seed}", seed=self.seed)),
            "average": Table(
                ("masks", "relative_error"),
                tuple(zip(MASKS, self.mean_errors, strict=True)),
                title=phrase("the mean over many masks compared with the numbers themselves, last token"),
            ),
            "places": Table(
                ("place", "where", "setting", "in_training", "running"),
                places,
                title=phrase("where GPT-2 has dropout"),
                decimals={"in_training": 1},
            ),
        }


def dropout(lm: LM, text: Text = PROMPT, *, p: float = 0.1, seed: int = 42, layer: int = 0) -> DropoutView:
    """Apply dropout to the attention output of one block, [tokens, features], as training would.

    Raises BadInput unless 0 <= p < 1, and for a layer that does not exist.

        dropout(lm, p=0.1).zeros        # about 0.1
    """
    if not 0 <= p < 1:
        raise BadInput(f"p must be at least 0 and below 1, got {p:g}: GPT-2's is 0.1")
    if seed < 0:
        raise BadInput(f"seed must be 0 or more, got {seed}")
    index = checked_index("layer", layer, lm.config.n_layer, lm.name)
    place = f"blocks.{index}.attn.out"
    source, trace = trace_text(lm, text, [place])
    again = lm.trace(source.ids, [place])[place]
    before = trace[place]
    generator = np.random.default_rng(seed)
    mask = generator.random(before.shape, np.float32) >= p
    after = thinned(before, mask, p)
    return DropoutView(
        source,
        p,
        seed,
        index,
        before,
        mask,
        after,
        _mean_errors(before[-1], p, generator),
        lm.config.rope is None,
        before.tobytes() == again.tobytes(),
    )


def thinned(values: Floats, mask: NDArray[np.bool_], p: float) -> Floats:
    """Inverted dropout: values / (1 - p) where the mask is True, else 0; any shape.

    >>> thinned(np.array([9.0, 9.0], np.float32), np.array([True, False]), 0.1).tolist()
    [10.0, 0.0]
    """
    return np.where(mask, values / np.float32(1 - p), np.float32(0)).astype(np.float32)


def _mean_errors(values: Floats, p: float, generator: np.random.Generator) -> tuple[float, ...]:
    """Return the distance of the mean over MASKS masks from the values [C], relative to their length.

    The mean depends only on how often each number survives, which is binomial.
    """
    length = float(np.linalg.norm(values)) or 1.0
    errors = []
    for masks in MASKS:
        kept = generator.binomial(masks, 1 - p, values.shape) / (masks * (1 - p))
        errors.append(float(np.linalg.norm(values * (kept - 1))) / length)
    return tuple(errors)
