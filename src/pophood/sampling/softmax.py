"""Softmax of a row of logits: weights, log-sum-exp, entropy and the likeliest tokens.

A row is 1-D, [V] or fewer; -inf is a probability of 0. Exponentials are float32, as precise as the logits
are; sums are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]

GROUPS = 64  # top_k looks at the maxima over this many strided rows: V/64 numbers instead of V
BLOCK = 512  # draws look at sums over blocks of this size first
PIECE = 32 * BLOCK  # exponentials computed at a time: 64 KiB stay in cache and cause no page faults

_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True)
class Likeliest:
    """A row of which only the k largest logits are held: their ids and values, the largest first, ties by id.

    `log_mass` is the log-sum-exp and `entropy` the entropy of the whole row, in nats.
    """

    ids: NDArray[np.int32]
    logits: Floats
    log_mass: float
    entropy: float


def weights(logits: Floats) -> Floats:
    """Return exp(logit - largest logit), the probabilities before division by their sum: [n] -> [n].

    >>> weights(np.array([0.0, -np.inf], dtype=np.float32)).tolist()
    [1.0, 0.0]
    """
    shifted: Floats = logits - logits.max()
    return np.exp(shifted, out=shifted)


def total(row: Floats) -> float:
    """Return the float64 sum of a float32 row."""
    return float(np.add.reduce(row, dtype=np.float64))


def block_sums(logits: Floats) -> NDArray[np.float64]:
    """Return the sums of the weights over blocks of 512: [n] -> [ceil(n / 512)]. Allocates no array of n."""
    largest = logits.max()
    starts = np.arange(0, min(len(logits), PIECE), BLOCK)
    sums = []
    for start in range(0, len(logits), PIECE):
        row: Floats = logits[start : start + PIECE] - largest
        np.exp(row, out=row)
        sums.append(np.add.reduceat(row, starts[: -(-len(row) // BLOCK)], dtype=np.float64))
    return np.concatenate(sums)


def log_sum_exp(logits: Floats) -> float:
    """Return log(sum(exp(logits))) in nats; a token's log-probability is its logit minus this number.

    >>> round(log_sum_exp(np.zeros(4, dtype=np.float32)), 6)  # log(4)
    1.386294
    """
    return float(logits.max()) + math.log(block_sums(logits).sum())


def entropy(logits: Floats) -> float:
    """Return the entropy of softmax(logits) in nats: 0 when one token is certain, log(V) when all are equal.

    >>> round(entropy(np.array([1, 1, -np.inf], dtype=np.float32)), 6)  # log(2)
    0.693147
    """
    return measures(logits)[1]


def measures(logits: Floats) -> tuple[float, float]:
    """Return log-sum-exp and entropy of a row, in nats, in one pass."""
    log_mass, mean_surprise = shifted_measures(logits)
    return float(logits.max()) + log_mass, mean_surprise


def shifted_measures(logits: Floats) -> tuple[float, float]:
    """Return log-sum-exp and entropy of the row after subtracting its largest logit from every logit."""
    largest = logits.max()
    mass = weighted = 0.0
    for start in range(0, len(logits), PIECE):
        shifted: Floats = logits[start : start + PIECE] - largest
        row = np.exp(shifted)
        mass += total(row)
        np.maximum(shifted, _LOWEST, out=shifted)  # 0 * -inf would be NaN; the limit is 0
        weighted += total(np.multiply(shifted, row, out=shifted))
    return math.log(mass), max(math.log(mass) - weighted / mass, 0.0)


def top_k(logits: Floats, k: int) -> Ids:
    """Return the ascending indices of the k largest logits; ties go to the lowest index.

    >>> top_k(np.array([1, 3, 2, 3, 3], dtype=np.float32), 2).tolist()
    [1, 3]
    """
    n = len(logits)
    if k >= n:
        return np.arange(n)
    near = _at_least_k_largest(logits, k)
    values = logits if near is None else logits[near]
    kth = _kth_largest(values, k)
    places = (values >= kth).nonzero()[0]
    if len(places) > k:  # several equal the k-th: take the first of them
        above = (values > kth).nonzero()[0]
        equal = (values == kth).nonzero()[0][: k - len(above)]
        places = np.sort(np.concatenate((above, equal)))
    return places if near is None else near[places]


def _at_least_k_largest(logits: Floats, k: int) -> Ids | None:
    # At least k numbers reach the k-th largest of the groups' maxima, so the k-th largest number is not below
    # it. This reads V numbers once with SIMD, where a partition would move them.
    groups = len(logits) // GROUPS
    if k * 2 > groups:
        return None
    maxima: Floats = logits[: groups * GROUPS].reshape(GROUPS, groups).max(axis=0)
    return (logits >= _kth_largest(maxima, k)).nonzero()[0]


def _kth_largest(values: Floats, k: int) -> np.float32:
    place = len(values) - k
    parted = values.copy()
    parted.partition(place)
    return np.float32(parted[place])


def ranked(logits: Floats, k: int) -> Ids:
    """Return the indices of the k largest logits, the largest first; ties by index.

    >>> ranked(np.array([1, 3, 2, 3], dtype=np.float32), 3).tolist()
    [1, 3, 2]
    """
    places = top_k(logits, k)
    return places[np.argsort(-logits[places], kind="stable")]
