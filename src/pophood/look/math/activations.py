"""Activation functions of a feed-forward layer in NumPy: both forms of GELU, and SiLU.

GELU is x * Phi(x), where Phi is the cumulative normal distribution (Hendrycks and Gimpel 2016); GPT-2 uses
that paper's tanh approximation. SiLU is x * sigmoid(x).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pophood.phrases import later

Reals = NDArray[np.float64]


def gelu_tanh(x: Reals) -> Reals:
    """Return 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), elementwise.

    >>> gelu_tanh(np.array([-10.0, 0.0, 10.0])).tolist()
    [-0.0, 0.0, 10.0]
    """
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.asarray(0.5 * x * (1 + np.tanh(inner)))


def gelu(x: Reals) -> Reals:
    """Return x * Phi(x), elementwise.

    >>> round(float(gelu(np.array([1.0]))[0]), 4)
    0.8413
    """
    phi = np.fromiter((0.5 * math.erfc(-value / math.sqrt(2)) for value in x.flat), np.float64, x.size)
    return np.asarray(x * phi.reshape(x.shape))


def silu(x: Reals) -> Reals:
    """Return x / (1 + exp(-x)), elementwise.

    >>> silu(np.array([0.0])).tolist()
    [0.0]
    """
    return np.asarray(x * 0.5 * (1 + np.tanh(x / 2)))  # equal, and cannot overflow


ACTIVATIONS: dict[str, Callable[[Reals], Reals]] = {"gelu_tanh": gelu_tanh, "gelu": gelu, "silu": silu}
WRITTEN = {
    "gelu_tanh": later("GELU, tanh form"),
    "gelu": later("GELU, x times Phi(x)"),
    "silu": later("SiLU, x times sigmoid(x)"),
}


def gelu_difference() -> tuple[float, float]:
    """Return the largest |tanh form - x * Phi(x)|, and the positive x at which it occurs.

    >>> largest, place = gelu_difference()
    >>> f"{largest:.1e} at {place:.1f}"
    '4.7e-04 at 2.7'
    """
    x = np.linspace(0.0, 6.0, 6001)
    difference = np.abs(gelu_tanh(x) - gelu(x))
    return float(difference.max()), float(x[difference.argmax()])
