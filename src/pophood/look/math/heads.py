"""Labels of attention heads: four measured scores per head, and a name where one score is clear.

"Induction" and the repeated random text follow Olsson et al. 2022, "In-context Learning and Induction Heads";
"first token" is the attention sink of Xiao et al. 2023, "Efficient Streaming Language Models with Attention
Sinks"; "same token" adds up what Wang et al. 2022 ("Interpretability in the Wild") call a duplicate-token
head and a token's look at itself. A label says what a head does on this text, not what it is for.

Many heads rest on the first token whenever they have nothing to do. That share is therefore taken out first:
the other three scores are shares of the weight that is left, and come before "first token".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pophood.model.lm import LM

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
LABELS = ("previous token", "first token", "same token", "induction")
LETTERS = ("P", "F", "S", "I")
NO_LABEL = "no label"
SINK = LABELS.index("first token")
# A previous-token head shows its habit on every text, the next two where tokens occur again, a sink nothing.
SHOWING = ("previous token", "induction", "same token", "first token")
# Conventions, as good as any near them: a third of the weight that is not on the first token makes a habit;
# a head without a habit that leaves two thirds of all its weight on the first token is a sink.
CLEAR = (1 / 3, 2 / 3, 1 / 3, 1 / 3)  # in the order of LABELS
PERIOD, REPEATS, SEED = 25, 4, 42  # of the probe: random tokens, how often they come, from which seed


@dataclass(frozen=True, slots=True, eq=False)
class HeadScores:
    """The scores of every head on one text: `values` [L, H, 4], each 0..1, in the order of LABELS."""

    values: Floats

    def label(self, layer: int, head: int) -> str:
        """The name of the head's habit, or "no label"."""
        best = self.best(layer, head)
        return NO_LABEL if best is None else LABELS[best]

    def best(self, layer: int, head: int) -> int | None:
        """The place of the head's label in LABELS; None without one. A habit comes before the sink."""
        row = self.values[layer, head]
        order = sorted(range(len(LABELS)), key=lambda i: (i == SINK, -row[i]))
        return next((i for i in order if row[i] >= CLEAR[i]), None)

    def most_informative(self, layer: int | None = None) -> tuple[int, int]:
        """Layer and head that show most on any text, of one layer or of the whole model.

        Labels count in the order of SHOWING; among heads of one label the clearest is taken.
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
        """How many heads have each label: {"previous token": 5, ..., "no label": 71}."""
        layers, heads, _ = self.values.shape
        labels = [self.label(layer, head) for layer in range(layers) for head in range(heads)]
        return {name: labels.count(name) for name in (*LABELS, NO_LABEL)}


def head_scores(patterns: Floats, ids: NDArray[np.integer]) -> Floats:
    """The four scores of heads on one text, [..., T, T] and [T] -> [..., 4]; rows of a pattern are queries.

    first token     mean weight on the first token, over the queries from the second on

    The others are sums over queries of the weight on some keys, divided by the weight on all keys but the
    first; 0 where nothing is left.

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
    habits: dict[str, tuple[Bools, Bools]] = {
        "previous token": (np.eye(tokens, k=-1, dtype=bool), at >= 2),
        "same token": (equal, at >= 1),
        "induction": (followed, np.asarray(followed.any(axis=1))),
    }
    left = 1.0 - patterns[..., 0].astype(np.float64)
    for name, (keys, queries) in habits.items():
        weights = np.where(keys & (at > 0), patterns, np.float32(0)).sum(axis=-1, dtype=np.float64)
        on_keys, on_all = (weight[..., queries].sum(axis=-1) for weight in (weights, left))
        share = np.divide(on_keys, on_all, out=np.zeros_like(on_all), where=on_all > 1e-6)
        scores[..., LABELS.index(name)] = np.minimum(share, 1.0)
    return scores


def probe_ids(lm: LM) -> list[int]:
    """The repeated random text: a start token, then 25 different random tokens four times over.

    Fewer where the context window or the vocabulary is small. Special tokens do not occur. Where the
    tokenizer adds no start token, the first special one stands there, as GPT-2's end of text does.
    """
    tokenizer = lm.bundle.tokenizer
    specials = sorted(tokenizer.specials)
    start = [*tokenizer.start_ids] or specials[:1]
    plain = np.setdiff1d(np.arange(min(tokenizer.vocab_size, lm.config.vocab_size)), specials)
    period = max(1, min(PERIOD, (lm.engine.context - len(start)) // REPEATS, len(plain)))
    words: list[int] = np.random.default_rng(SEED).choice(plain, period, replace=False).tolist()
    return (start + words * REPEATS)[: lm.engine.context]


def measure_heads(lm: LM) -> HeadScores:
    """The scores of every head of the model on the repeated random text: [L, H, 4]. One forward pass.

    measure_heads(lm).counts()
    """
    ids = probe_ids(lm)
    trace = lm.trace(ids, ["blocks.*.attn.pattern"])
    names = (f"blocks.{i}.attn.pattern" for i in range(lm.config.n_layer))
    return HeadScores(np.stack([head_scores(trace[name], np.array(ids)) for name in names]))
