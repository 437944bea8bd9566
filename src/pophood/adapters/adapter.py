"""Adapter: low-rank changes to some matrices of a model, W + scale * B A (LoRA, Hu et al. 2021).

Training, PEFT folders and llama.cpp's adapter files all produce this record; the engine, exports and the
report of a tuning use it. NumPy only; the file formats are read by the other modules here and written in
`export/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput

Floats = NDArray[np.float32]
Pair = tuple[Floats, Floats]  # A [r, in], B [out, r]
ROWS = 4096  # rows of a matrix folded at once, which bounds the memory for float64


@dataclass(frozen=True, slots=True)
class Adapter:
    """`targets`: canonical matrix name ("blocks.0.attn.q") -> (A [r, in], B [out, r]), float32.

    The change is `scale` * B A. `rank` and `alpha` are the values in the files; a single matrix may have
    another rank. `base` describes the model that it was made for ("name", "architecture").
    """

    name: str
    rank: int
    alpha: float
    scale: float
    targets: dict[str, Pair]
    base: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return sum(a.size + b.size for a, b in self.targets.values())

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise BadInput, naming the matrix, unless every pair fits the tensor shapes of a model."""
        base = self.base.get("name")
        advice = "name the model that it was made for" + (f" (its files say {base})" if base else "")
        for target, (a, b) in self.targets.items():
            shape = shapes.get(f"{target}.weight")
            if target == "output" and shape is None:
                raise BadInput(
                    f"the adapter {self.name} changes the output matrix, which this model shares with the"
                    " token matrix (tied), so both would change: train without lm_head, or on an untied copy"
                )
            if shape is None or len(shape) != 2:
                matrices = [name for name, sizes in shapes.items() if len(sizes) == 2]
                known = sorted({bare(name)[:-7] for name in matrices if name.startswith("blocks.")})
                raise BadInput(
                    f"the adapter {self.name} changes {target}, which this model does not have (it has"
                    f" {', '.join(known)}): {advice}"
                )
            if (b.shape[0], a.shape[1]) != shape or a.shape[0] != b.shape[1]:
                raise BadInput(
                    f"the adapter {self.name} changes {target} by {list(b.shape)} x {list(a.shape)}; the"
                    f" model's is {list(shape)}: {advice}"
                )

    def fold(self, target: str, weight: Floats, scale: float = 1.0) -> Floats:
        """Return a matrix [out, in] with `scale` times this adapter added, or unchanged if not a target."""
        pair = self.targets.get(target)
        return weight if pair is None else fold(weight, *pair, self.scale * scale)

    def norms(self) -> dict[str, float]:
        """Return the Frobenius norm of each matrix's change."""
        return {name: change_norm(a, b, self.scale) for name, (a, b) in self.targets.items()}


def fold(weight: Floats, a: Floats, b: Floats, scale: float) -> Floats:
    """Compute weight + scale * (b @ a), [out, in], in float64, rounded once to float32.

    >>> one = np.ones((1, 1), np.float32)
    >>> fold(one, one, one, 0.5).tolist()
    [[1.5]]
    """
    folded = np.empty(weight.shape, np.float32)
    wide = a.astype(np.float64)
    for start in range(0, len(weight), ROWS):
        rows = slice(start, start + ROWS)
        folded[rows] = weight[rows] + scale * (b[rows].astype(np.float64) @ wide)
    return folded


def change_norm(a: Floats, b: Floats, scale: float) -> float:
    """Return the Frobenius norm of scale * b @ a without forming the matrix: norm squared = tr(B'B AA')."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    return float(abs(scale) * np.sqrt(max(0.0, np.sum((wide_b.T @ wide_b) * (wide_a @ wide_a.T)))))


def singular_values(a: Floats, b: Floats, scale: float) -> NDArray[np.float64]:
    """Return the r singular values of scale * b @ a, largest first, from the small factors alone.

    >>> a, b = np.eye(2, 3, dtype=np.float32), np.eye(4, 2, dtype=np.float32)
    >>> singular_values(a, b, 2.0).tolist()
    [2.0, 2.0]
    """
    right = np.linalg.qr(a.T.astype(np.float64))[1]
    left = np.linalg.qr(b.astype(np.float64))[1]
    values: NDArray[np.float64] = np.linalg.svd(left @ right.T, compute_uv=False) * abs(scale)
    return values


def bare(target: str) -> str:
    """Remove the block from a matrix's name: `bare("blocks.3.attn.q") == "attn.q"`."""
    return target.split(".", 2)[2] if target.startswith("blocks.") else target
