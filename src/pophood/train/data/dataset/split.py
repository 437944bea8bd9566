"""The split of documents into training and validation data, by a hash of their contents.

Equal documents and documents with the same prompt stay on one side: a loss on answers to known questions
would say nothing about new questions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 42  # the default
FEW = 1000  # groups, up to which they are chosen one by one, to meet the share closely
_MOST = 1.5  # times the goal: larger groups are not chosen, unless all are larger


def split_documents(
    rows: NDArray[Any], validation: float, seed: int, groups: NDArray[np.uint64] | None = None
) -> NDArray[np.bool_]:
    """Return a mask of the validation documents: a share of the tokens below 1, else a number of documents.

    Groups (default: the field `group`) are ordered by a hash of their content and the seed, and chosen until
    the share is reached. If there are at least two groups, at least one is chosen, and never all.
    """
    named = rows["group"] if groups is None else groups
    groups, member = np.unique(mixed(named, seed), return_inverse=True)
    if validation == 0 or len(groups) < 2:
        return np.zeros(len(rows), np.bool_)
    by_number = validation >= 1
    weights = np.ones(len(rows), np.int64) if by_number else (rows["end"] - rows["start"]).astype(np.int64)
    sizes = np.bincount(member, weights, minlength=len(groups))
    goal = validation if by_number else validation * sizes.sum()
    taken = np.zeros(len(groups), np.bool_)
    if len(groups) > FEW:
        small = np.flatnonzero(sizes <= _MOST * goal)
        enough = int(np.searchsorted(np.cumsum(sizes[small]), goal)) + 1
        taken[small[: min(enough, len(groups) - 1)]] = True
    else:
        total = 0.0
        for number, size in enumerate(sizes):
            if total + size <= _MOST * goal and total < goal and taken.sum() < len(groups) - 1:
                taken[number] = True
                total += size
    if not taken.any():
        taken[int(np.argmin(sizes))] = True
    return np.asarray(taken[member])


def groups_of(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the group of every document: documents with one prompt, joined if they share an equal document.

    If all documents would be one group, only equal documents are grouped, since a split needs two groups.
    """
    names, group = np.unique(rows["group"], return_inverse=True)
    contents, document = np.unique(rows["digest"], return_inverse=True)
    label = np.arange(len(names))
    while len(rows):
        least = np.full(len(contents), len(names))
        np.minimum.at(least, document, label[group])
        joined = label.copy()
        np.minimum.at(joined, group, least[document])
        if np.array_equal(joined, label):
            break
        label = joined
    groups = np.asarray(names[label[group]], np.uint64)
    return groups if len(np.unique(groups)) > 1 else np.asarray(rows["digest"], np.uint64)


def mixed(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Mix a seed into hashes by SplitMix64 (Steele, Lea and Flood 2014), which is a bijection."""
    with np.errstate(over="ignore"):
        z = np.asarray(values, np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
