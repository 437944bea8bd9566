"""Random numbers without state: a pure function of (seed, sample, position) (small: one algorithm).

The algorithm is Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011; the Random123 library), which `numpy.random.Philox` also implements: a counter of four 64-bit words
goes through ten keyed rounds of multiplication and mixing. No draw depends on another, so sample 7 of a batch
draws the same numbers as sample 7 alone, and a text continued later the same as one long run.

    counter = (position, sample, 0, 0)      key = (seed, 0)

    >>> [hex(word) for word in philox4x64((0, 0, 0, 0), (0, 0))]  # the first test vector of Random123
    ['0x16554d9eca36314c', '0xdb20fe9d672d0fdc', '0xd7e772cee186176b', '0x7e68b68aec7ba23b']
"""

from __future__ import annotations

import os

ROUNDS = 10

_MASK = 2**64 - 1
_MULTIPLIER_0 = 0xD2E7470EE14C6C93
_MULTIPLIER_1 = 0xCA5A826395121157
_WEYL_0 = 0x9E3779B97F4A7C15  # the golden ratio
_WEYL_1 = 0xBB67AE8584CAA73B  # the square root of 3, less 1

Words4 = tuple[int, int, int, int]


def philox4x64(counter: Words4, key: tuple[int, int]) -> Words4:
    """Return four random 64-bit words for a counter of four words and a key of two (Philox4x64-10)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0, c1 = (product_1 >> 64) ^ c1 ^ k0, product_1 & _MASK
        c2, c3 = (product_0 >> 64) ^ c3 ^ k1, product_0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def uniforms(seed: int, sample: int, position: int) -> tuple[float, float]:
    """Return two independent uniform numbers in [0, 1), multiples of 2**-53.

    The first draws the token, the second decides whether XTC is applied. `uniforms(42, sample=0, position=5)`
    is the same on every machine and in every batch.
    """
    first, second, _, _ = philox4x64((position, sample, 0, 0), (seed, 0))
    return (first >> 11) * 2.0**-53, (second >> 11) * 2.0**-53


def draw_seed() -> int:
    """Return a seed of 32 random bits from the operating system, short enough to copy from a screen."""
    return int.from_bytes(os.urandom(4), "little")
