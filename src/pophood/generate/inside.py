"""The insides of a model where it predicts a token: what a request asks for, and what it is told.

The row of position p - 1 predicts the token at position p, and everything that is told of p comes from that
row: the distribution, the logit lens, the weights of attention, the norms of the residual stream.
`inspection.py` reads them in the pass that generates the token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadInput

MOST_VALUES = 1 << 20  # of one request: about 25 MB of JSON
MOST_LISTED = 20  # tokens of `top` and of each block of a lens
ENTRY = 4  # values of a listed token: its id, its text, its logit, its log-probability

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Inspect:
    """The insides of the model to be told at every token. Raises BadInput.

    `top`: the likeliest tokens; `lens`: so many of the likeliest tokens after each block of `layers` (None:
    all blocks); `attention`: the weights of these heads (block, head); `residual_norms`: the lengths of the
    residual stream before the first block and after every block. `prompt` True adds the tokens of the prompt
    (first, end) those at these positions. When `bound` values were told, later tokens have none.
    """

    top: int = 0
    entropy: bool = False
    lens: int = 0
    layers: tuple[int, ...] | None = None
    attention: tuple[tuple[int, int], ...] = ()
    residual_norms: bool = False
    prompt: bool | tuple[int, int] = False
    bound: int = MOST_VALUES

    def __post_init__(self) -> None:
        for name, value in (("top", self.top), ("lens", self.lens)):
            if not 0 <= value <= MOST_LISTED:
                raise BadInput(f"{name} is {value:,}; wanted 0 to {MOST_LISTED} tokens")
        if not (self.top or self.entropy or self.lens or self.attention or self.residual_norms):
            raise BadInput("nothing is asked for; wanted top, entropy, lens, attention or residual_norms")

    def check(self, layers: int, heads: int, vocab_size: int) -> None:
        """Raise BadInput for a block, a head or a number of tokens that a model does not have."""
        for layer in (*(self.layers or ()), *(layer for layer, _ in self.attention)):
            if not 0 <= layer < layers:
                raise BadInput(f"block {layer} does not exist: wanted 0 to {layers - 1}")
        for _, head in self.attention:
            if not 0 <= head < heads:
                raise BadInput(f"head {head} does not exist: wanted 0 to {heads - 1}")
        if max(self.top, self.lens) > vocab_size:
            raise BadInput(f"{max(self.top, self.lens)} tokens: the vocabulary has {vocab_size:,}")

    def lens_layers(self, layers: int) -> tuple[int, ...]:
        """Return the blocks of the lens, in a model of so many."""
        if not self.lens:
            return ()
        return tuple(range(layers)) if self.layers is None else self.layers

    def values(self, position: int, layers: int) -> int:
        """Return how many values are told of the token at a position, in a model of so many blocks."""
        listed = self.top + self.lens * len(self.lens_layers(layers))
        norms = layers + 1 if self.residual_norms else 0
        return ENTRY * listed + self.entropy + len(self.attention) * position + norms

    def asked(self, prompt: int) -> range:
        """Return the positions of a prompt of so many tokens that are told. Nothing predicts the first."""
        if isinstance(self.prompt, bool):
            return range(1, prompt if self.prompt else 1)
        first, end = self.prompt
        return range(max(first, 1), min(end, prompt))


class BestTokens(NamedTuple):
    """The likeliest tokens of a distribution: `ids` and `logits` [k], and the log-sum-exp of all logits."""

    ids: NDArray[np.int32]
    logits: Floats
    log_mass: float

    @property
    def log_probabilities(self) -> Floats:
        """Log-probabilities in nats, rounded to f32."""
        return (self.logits.astype(np.float64) - self.log_mass).astype(np.float32)

    def first(self, k: int) -> Self:
        """Return the first k of the tokens."""
        return self._replace(ids=self.ids[:k], logits=self.logits[:k])


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """The likeliest tokens after each block of `layers`: `ids` and `logits` [L, k], and `log_masses` [L].

    Iterating gives pairs of a block and its BestTokens.
    """

    layers: tuple[int, ...]
    ids: NDArray[np.int32]
    logits: Floats
    log_masses: NDArray[np.float64]

    def __iter__(self) -> Iterator[tuple[int, BestTokens]]:
        return zip(self.layers, map(BestTokens, self.ids, self.logits, self.log_masses.tolist()), strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """The insides where the token at `position` was predicted; None where something was not asked for.

    `entropy` is in nats. `lens` has the blocks that were asked for, `attention` [heads, position] the weights
    of their heads on the positions before, `residual_norms` [L + 1] the lengths of the residual stream.
    """

    position: int
    top: BestTokens | None = None
    entropy: float | None = None
    lens: Lens | None = None
    attention: Floats | None = None
    residual_norms: Floats | None = None


def residual_norms(streams: Floats) -> Floats:
    """Return the Euclidean length of each row; sums in float64, rounded to f32: [..., C] -> [...].

    >>> residual_norms(np.array([[3.0, 4.0]], np.float32)).tolist()
    [5.0]
    """
    lengths: Floats = np.sqrt(np.square(streams.astype(np.float64)).sum(axis=-1)).astype(np.float32)
    return lengths
