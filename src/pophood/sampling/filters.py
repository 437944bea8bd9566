"""Filters: which tokens may still be drawn. Each is a pure function: logits [n] -> kept indices, ascending.

A filter sees only the tokens that earlier steps kept, with their probabilities renormalised, as in llama.cpp
and transformers. Every filter keeps at least one token. Ties go to the lowest index, so that no result
depends on how a sort orders equal values.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from pophood.sampling.softmax import Floats, Ids, block_sums, log_sum_exp, shifted_measures, top_k, weights

__all__ = ["min_p", "top_k", "top_p", "typical", "xtc"]

_BINS = 2048
_BINS_PER_NAT = 32.0


def top_p(logits: Floats, p: float) -> Ids:
    """Keep the fewest likeliest tokens that sum to probability p or more ("nucleus", Holtzman et al. 2019).

    >>> top_p(np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32)), 0.7).tolist()
    [0, 1]
    """
    if p >= 1.0:
        return np.arange(len(logits))
    mass, largest = float(block_sums(logits).sum()), logits.max()
    # All tokens below this weight together have less than 1 - p of the mass, so none of them is needed. On
    # text this leaves a few hundred of V to sort. (The 0.999 allows for rounding.)
    floor = 0.999 * (1.0 - p) * mass / len(logits)
    near = np.flatnonzero(logits >= largest + np.float32(math.log(floor)))
    cost: Floats = largest - logits[near]
    return near[_smallest_set(cost, np.exp(-cost), p * mass)]


def min_p(logits: Floats, p: float) -> Ids:
    """Keep the tokens at least p times as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082).

    >>> min_p(np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32)), 0.5).tolist()
    [0, 1]
    """
    if p <= 0.0:
        return np.arange(len(logits))
    return np.flatnonzero(logits >= logits.max() + np.float32(math.log(p)))


def typical(logits: Floats, p: float) -> Ids:
    """Keep the fewest tokens, those with a surprisal nearest to the entropy first, that sum to probability p.

    The method is Meister et al. 2022, arXiv 2202.00666. It may drop the likeliest token: with probabilities
    0.4, 0.3 and 0.3 the entropy is 1.09 nats, nearer to the 1.20 of the two than to the 0.92 of the first.

    >>> typical(np.log(np.array([0.4, 0.3, 0.3], dtype=np.float32)), 0.5).tolist()
    [1, 2]
    """
    if p >= 1.0:
        return np.arange(len(logits))
    log_mass, entropy = shifted_measures(logits)
    row = weights(logits)
    distance: Floats = logits - logits.max()  # becomes |surprisal - entropy| below
    np.abs(np.subtract(distance, np.float32(log_mass - entropy), out=distance), out=distance)
    return _smallest_set(distance, row, p * float(row.sum(dtype=np.float64)))


def xtc(logits: Floats, threshold: float) -> Ids:
    """Exclude top choices: drop all tokens with probability >= threshold but the least likely of them.

    The method is p-e-w's, text-generation-webui pull request 6335. The chain decides by a random number
    whether to apply it.

    >>> xtc(np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32)), 0.1).tolist()
    [2, 3]
    """
    least = log_sum_exp(logits) + math.log(max(threshold, sys.float_info.min))
    choices = np.flatnonzero(logits >= np.float32(least))
    if len(choices) < 2:
        return np.arange(len(logits))
    values = logits[choices]
    last = choices[len(choices) - 1 - int(np.argmin(values[::-1]))]
    keep = np.ones(len(logits), dtype=np.bool_)
    keep[choices] = False
    keep[last] = True
    return np.flatnonzero(keep)


def _smallest_set(cost: Floats, row: Floats, wanted: float) -> Ids:
    """Return the ascending indices of the fewest entries of lowest cost whose weights sum to `wanted`."""
    wanted = max(wanted, sys.float_info.min)  # keep at least one entry
    if len(cost) <= _BINS:
        return np.sort(_cheapest_first(cost, row, wanted))
    # Sorting 150,000 floats takes milliseconds. A histogram of the costs shows in which bin the sum reaches
    # `wanted`, and only that bin is sorted.
    bins = np.minimum(cost * np.float32(_BINS_PER_NAT), np.float32(_BINS - 1)).astype(np.intp)
    mass = np.add.accumulate(np.bincount(bins, weights=row, minlength=_BINS))
    crossing = min(int(np.searchsorted(mass, wanted, side="left")), _BINS - 1)
    before = float(mass[crossing - 1]) if crossing else 0.0
    inside = np.flatnonzero(bins == crossing)
    last = inside[_cheapest_first(cost[inside], row[inside], wanted - before)]
    return np.sort(np.concatenate((np.flatnonzero(bins < crossing), last)))


def _cheapest_first(cost: Floats, row: Floats, wanted: float) -> Ids:
    order = np.argsort(cost, kind="stable")
    reached = np.add.accumulate(row[order], dtype=np.float64)
    count = int(np.searchsorted(reached, wanted, side="left")) + 1
    return order[:count]
