"""The end of a model in NumPy: final norm and output matrix, and which token a text names.

Views that turn hidden states into tokens stand on it; what generates text is the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput

if TYPE_CHECKING:
    from pophood.model.lm import LM

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Unembed:
    """Hidden states [N, C] -> logits [N, V]. `matrix` [V, C] is W_O turned: one row for each token."""

    matrix: Floats
    gain: Floats
    shift: Floats | None  # None: RMS norm, which neither centres nor shifts
    eps: float

    @classmethod
    def of(cls, lm: LM) -> Unembed:
        """The end of this model, decoded to f32 once: 154 MB for GPT-2 small, unless the file stores f32."""
        name = "embed.token" if lm.config.tied_output else "output.weight"
        shift = lm.weights["final_norm.bias"] if lm.config.norm == "layer" else None
        return cls(lm.weights[name], lm.weights["final_norm.weight"], shift, lm.config.norm_eps)

    def norm(self, hidden: Floats) -> Floats:
        """The final norm, row by row: [N, C] -> [N, C]; sums in float64."""
        rows = hidden.astype(np.float64)
        if self.shift is not None:
            rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + self.eps)
        return (rows * self.gain + (0.0 if self.shift is None else self.shift)).astype(np.float32)

    def logits(self, normed: Floats) -> Floats:
        """Rows after the final norm times W_O: [N, C] -> [N, V]."""
        return normed @ self.matrix.T


def token_of(lm: LM, token: str | int) -> int:
    """The id of a token given as its text (" Madrid") or its id; BadInput if it is not exactly one.

    Example: `token_of(gpt2, " Madrid") == 14708`.
    """
    tokenizer, size = lm.bundle.tokenizer, lm.config.vocab_size
    if isinstance(token, int):
        if 0 <= token < size:
            return token
        raise BadInput(f"token id {token} is not in the vocabulary: wanted 0..{size - 1:,}")
    found = tokenizer.id_of(token) if token else None
    if found is not None and found < size:
        return found
    pieces = [tokenizer.token_text(id_) for id_ in tokenizer.encode(token, add_start=False)]
    spaced = f" {token.strip()}"
    advice = f"; {spaced!r}, with the space, is one" if tokenizer.id_of(spaced) is not None else ""
    raise BadInput(
        f"{token!r} is no token, but the {len(pieces)} tokens {', '.join(map(repr, pieces[:8]))}{advice}: "
        "wanted the text of one token, or its id"
    )
