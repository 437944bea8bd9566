"""Labels of attention heads: four measured scores per head, and a label if one score is clear.

"Induction" and the repeated random text follow Olsson et al. 2022, "In-context Learning and Induction Heads";
"first token" is the attention sink of Xiao et al. 2023, "Efficient Streaming Language Models with Attention
Sinks"; "same token" is the sum of attention to the token itself and of what Wang et al. 2022
("Interpretability in the Wild") call a duplicate-token head. A label describes a head's behaviour on this
text, not its purpose.

Many heads rest on the first token when they have nothing to do. The other three scores are therefore shares
of the remaining weight, and take precedence over "first token".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pophood.model.lm import LM
from pophood.phrases import later

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
LABELS = (later("previous token"), later("first token"), later("same token"), later("induction"))
LETTERS = ("P", "F", "S", "I")
NO_LABEL = later("no label")
SINK = LABELS.index("first token")
# The most informative first: a previous-token head shows its pattern on every text, the next two only where
# tokens repeat, and a sink says nothing about the text.
SHOWING = ("previous token", "induction", "same token", "first token")
# Conventions; values nearby would do as well: a label needs a third of the weight that is not on the first
# token, and a head without such a label is a sink if two thirds of all its weight is on the first token.
CLEAR = (1 / 3, 2 / 3, 1 / 3, 1 / 3)  # in the order of LABELS
PERIOD, REPEATS, SEED = 25, 4, 42  # of the probe: number of random tokens, repetitions, seed


@dataclass(frozen=True, slots=True, eq=False)
class HeadScores:
    """The scores of every head on one text: `values` [L, H, 4], each 0..1, in the order of LABELS."""

    values: Floats

    def label(self, layer: int, head: int) -> str:
        """Return the head's label, or "no label"."""
        best = self.best(layer, head)
        return NO_LABEL if best is None else LABELS[best]

    def best(self, layer: int, head: int) -> int | None:
        """Return the index of the head's label in LABELS, or None; "first token" comes last."""
        row = self.values[layer, head]
        order = sorted(range(len(LABELS)), key=lambda i: (i == SINK, -row[i]))
        return next((i for i in order if row[i] >= CLEAR[i]), None)

    def most_informative(self, layer: int | None = None) -> tuple[int, int]:
        """Return layer and head of the most informative head, of one layer or of the whole model.

        Labels rank in the order of SHOWING; among heads with the same label, the highest score wins.
        """
        layers, heads, _ = self.values.shape
        places = [(i, h) for i in range(layers) for h in range(heads) if layer in (None, i)]

        def clearness(place: tuple[int, int]) -> tuple[int, float]:
            best = self.best(*place)
            if best is None:
                return len(SHOWING), -float(np.delete(self.values[place], SINK).max())
            return SHOWING.index(LABELS[best]), -float(self.values[place][best])

        return min(places, key=clearness)

    def counts(self) -> dict[str, int]:
        """Return the number of heads with each label: {"previous token": 5, ..., "no label": 71}."""
        layers, heads, _ = self.values.shape
        labels = [self.label(layer, head) for layer in range(layers) for head in range(heads)]
        return {name: labels.count(name) for name in (*LABELS, NO_LABEL)}


def head_scores(patterns: Floats, ids: NDArray[np.integer]) -> Floats:
    """Return the four scores of heads on one text, [..., T, T] and [T] -> [..., 4].

    The rows of a pattern are queries.

    first token     mean weight on the first token, over the queries from the second on

    The others are sums over queries of the weight on some keys, divided by the weight on all keys but the
    first; 0 if that weight is 0.

    previous token  the token before the query (queries from the third on, as the second one's is the first)
    same token      the query itself and earlier equal tokens (queries from the second on)
    induction       tokens that followed an earlier occurrence of the query's own token, over the queries
                    whose token has occurred before ("prefix matching")
    """
    tokens = len(ids)
    scores = np.zeros((*patterns.shape[:-2], len(LABELS)), np.float32)
    if tokens < 2:
        return scores
    scores[..., SINK] = patterns[..., 1:, 0].mean(axis=-1, dtype=np.float64)
    equal = np.tril(ids[:, None] == ids[None, :])
    followed = np.zeros((tokens, tokens), bool)
    followed[:, 1:] = np.tril(equal, -1)[:, :-1]
    at = np.arange(tokens)
    masks: dict[str, tuple[Bools, Bools]] = {  # label -> keys [T, T], queries [T]
        "previous token": (np.eye(tokens, k=-1, dtype=bool), at >= 2),
        "same token": (equal, at >= 1),
        "induction": (followed, np.asarray(followed.any(axis=1))),
    }
    elsewhere = 1.0 - patterns[..., 0].astype(np.float64)
    for name, (keys, queries) in masks.items():
        weights = np.where(keys & (at > 0), patterns, np.float32(0)).sum(axis=-1, dtype=np.float64)
        on_keys, on_all = (weight[..., queries].sum(axis=-1) for weight in (weights, elsewhere))
        share = np.divide(on_keys, on_all, out=np.zeros_like(on_all), where=on_all > 1e-6)
        scores[..., LABELS.index(name)] = np.minimum(share, 1.0)
    return scores


def probe_ids(lm: LM) -> list[int]:
    """Return the repeated random text: a start token, then 25 different random tokens, four times over.

    There are fewer if the context window or the vocabulary is small. Special tokens do not occur, except that
    the first of them is the start token if the tokenizer has none of its own (end of text for GPT-2).
    """
    tokenizer = lm.bundle.tokenizer
    specials = sorted(tokenizer.specials)
    start = [*tokenizer.start_ids] or specials[:1]
    plain = np.setdiff1d(np.arange(min(tokenizer.vocab_size, lm.config.vocab_size)), specials)
    period = max(1, min(PERIOD, (lm.engine.context - len(start)) // REPEATS, len(plain)))
    words: list[int] = np.random.default_rng(SEED).choice(plain, period, replace=False).tolist()
    return (start + words * REPEATS)[: lm.engine.context]


def measure_heads(lm: LM) -> HeadScores:
    """Score every head of the model on the repeated random text, [L, H, 4], in one forward pass.

    measure_heads(lm).counts()
    """
    ids = probe_ids(lm)
    trace = lm.trace(ids, ["blocks.*.attn.pattern"])
    names = (f"blocks.{i}.attn.pattern" for i in range(lm.config.n_layer))
    return HeadScores(np.stack([head_scores(trace[name], np.array(ids)) for name in names]))
