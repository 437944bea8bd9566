"""What a row of logits says as probabilities: weights, log-sum-exp, entropy, the likeliest tokens.

Exponentials are float32 (that is what the logits are good for), sums are float64. No random numbers, no
settings. The row is 1-D, [V] or fewer; -inf means "cannot happen".
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.intp]

GROUPS = 64  # top_k reads the row as this many strided groups' maxima: V/64 numbers instead of V
BLOCK = 512  # draws and totals first look at sums over blocks of this size
PIECE = 32 * BLOCK  # exponentials made at a time: 64 KiB stay in cache and cost no page faults

_LOWEST = np.finfo(np.float32).min


def weights(logits: Floats) -> Floats:
    """exp(logit - largest logit): probabilities before division by their sum. [n] -> [n].

    >>> weights(np.array([0.0, -np.inf], dtype=np.float32)).tolist()
    [1.0, 0.0]
    """
    shifted: Floats = logits - logits.max()
    return np.exp(shifted, out=shifted)


def total(row: Floats) -> float:
    """The float64 sum of a float32 row."""
    return float(np.add.reduce(row, dtype=np.float64))


def block_sums(logits: Floats) -> NDArray[np.float64]:
    """Sums of the weights over blocks of 512, [n] -> [ceil(n / 512)], without an array of n weights."""
    largest = logits.max()
    starts = np.arange(0, min(len(logits), PIECE), BLOCK)
    sums = []
    for start in range(0, len(logits), PIECE):
        row: Floats = logits[start : start + PIECE] - largest
        np.exp(row, out=row)
        sums.append(np.add.reduceat(row, starts[: -(-len(row) // BLOCK)], dtype=np.float64))
    return np.concatenate(sums)


def log_sum_exp(logits: Floats) -> float:
    """log(sum(exp(logits))), in nats: a token's log-probability is its logit minus this number.

    >>> round(log_sum_exp(np.zeros(4, dtype=np.float32)), 6)  # log(4)
    1.386294
    """
    return float(logits.max()) + math.log(block_sums(logits).sum())


def entropy(logits: Floats) -> float:
    """The entropy of softmax(logits), in nats: 0 when one token is certain, log(V) when all are equal.

    >>> round(entropy(np.array([1, 1, -np.inf], dtype=np.float32)), 6)  # log(2)
    0.693147
    """
    return measures(logits)[1]


def measures(logits: Floats) -> tuple[float, float]:
    """(log-sum-exp, entropy) of a row in one pass, both in nats."""
    log_mass, mean_surprise = shifted_measures(logits)
    return float(logits.max()) + log_mass, mean_surprise


def shifted_measures(logits: Floats) -> tuple[float, float]:
    """The same of the row less its largest logit: both are blind to a constant added to all logits."""
    largest = logits.max()
    mass = weighted = 0.0
    for start in range(0, len(logits), PIECE):
        shifted: Floats = logits[start : start + PIECE] - largest
        row = np.exp(shifted)
        mass += total(row)
        np.maximum(shifted, _LOWEST, out=shifted)  # a weight of 0 times -inf would be NaN; its limit is 0
        weighted += total(np.multiply(shifted, row, out=shifted))
    return math.log(mass), max(math.log(mass) - weighted / mass, 0.0)


def top_k(logits: Floats, k: int) -> Ids:
    """Indices, ascending, of the k largest logits; of equal ones the lowest indices are taken.

    >>> top_k(np.array([1, 3, 2, 3, 3], dtype=np.float32), 2).tolist()
    [1, 3]
    """
    n = len(logits)
    if k >= n:
        return np.arange(n)
    near = _at_least_k_largest(logits, k)
    values = logits if near is None else logits[near]
    kth = _kth_largest(values, k)
    kept = (values >= kth).nonzero()[0]
    if len(kept) > k:  # several equal the k-th: the first of them
        above = (values > kth).nonzero()[0]
        equal = (values == kth).nonzero()[0][: k - len(above)]
        kept = np.sort(np.concatenate((above, equal)))
    return kept if near is None else near[kept]


def _at_least_k_largest(logits: Floats, k: int) -> Ids | None:
    # k groups hold at least k numbers that reach the k-th largest of the groups' maxima; so the k-th largest
    # number is not below it. This reads V numbers once with SIMD, where a partition moves them.
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
    """Indices of the k largest logits, the largest first; equal ones by index.

    >>> ranked(np.array([1, 3, 2, 3], dtype=np.float32), 3).tolist()
    [1, 3, 2]
    """
    kept = top_k(logits, k)
    return kept[np.argsort(-logits[kept], kind="stable")]
