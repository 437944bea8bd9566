"""Geometry of rows: principal components and cosines, in plain NumPy; no model, no text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Rows projected on a few directions: coordinates [n, k], directions [k, C], share of variance [k]."""

    coordinates: NDArray[np.float64]
    directions: NDArray[np.float64]
    explained: tuple[float, ...]


def principal(rows: Floats, count: int = 2) -> Projection:
    """Centre the rows [n, C] and project them on their first `count` right singular vectors.

    The sign of a singular vector is arbitrary and differs between libraries. Here its component of largest
    magnitude is positive, so that every machine draws the same picture.

    >>> principal(np.array([[0.0, 0.0], [3.0, -4.0], [6.0, -8.0]]), 1).coordinates.round(6).tolist()
    [[5.0], [0.0], [-5.0]]
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    total = float((centred**2).sum())
    if centred.shape[0] > centred.shape[1]:  # eigenvectors of the smaller C x C product are the same
        squares, vectors = np.linalg.eigh(centred.T @ centred)
        squares, directions = squares[::-1][:count], vectors.T[::-1][:count]
    else:
        _, singular, right = np.linalg.svd(centred, full_matrices=False)
        squares, directions = singular[:count] ** 2, right[:count]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    directions = directions * np.where(signs == 0, 1.0, signs)[:, None]
    shares = tuple(float(square) / total if total else 0.0 for square in squares)
    return Projection(centred @ directions.T, directions, shares)


def lengths(rows: Floats) -> NDArray[np.float64]:
    """Return the Euclidean length of every row; that of a zero row is tiny, so that it can be a divisor."""
    squares = np.einsum("nc,nc->n", rows, rows, dtype=np.float64, casting="same_kind")
    shortest: NDArray[np.float64] = np.maximum(np.sqrt(squares), np.finfo(np.float64).tiny)
    return shortest


def cosine(a: Floats, b: Floats) -> float:
    """Return the cosine of the angle between two vectors: 1 if they point the same way, -1 if opposite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), np.finfo(np.float64).tiny))


def cosines(rows: Floats) -> NDArray[np.float64]:
    """Return the cosine of every pair of rows: [n, n]."""
    unit = rows.astype(np.float64) / lengths(rows)[:, None]
    return unit @ unit.T


def nearest(rows: Floats, index: int, k: int) -> list[tuple[int, float]]:
    """Return the k nearest rows to row `index` by cosine, without itself: (row, cosine), best first.

    Equal cosines are ordered by row. `rows` [n, C] is read once and not copied.
    """
    towards = (rows @ rows[index]).astype(np.float64) / (lengths(rows) * lengths(rows[index : index + 1])[0])
    towards[index] = -np.inf
    best = np.argsort(-towards, kind="stable")[:k]
    return [(int(row), float(towards[row])) for row in best]
