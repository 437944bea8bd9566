"""Philox4x64-10 against its published test vectors and NumPy, and the uniform numbers made from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pophood.sampling import SEED_LIMIT, draw_seed, philox4x64, uniforms

WORD = st.integers(0, 2**64 - 1)
FULL = 2**64 - 1

# Random123, tests/kat_vectors: counter, key, answer
PUBLISHED = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B),
    ),
    (
        (FULL, FULL, FULL, FULL),
        (FULL, FULL),
        (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0),
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), PUBLISHED)
def test_the_published_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], answer: tuple[int, int, int, int]
) -> None:
    assert philox4x64(counter, key) == answer


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_numpy_computes_the_same(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    # NumPy adds 1 to the counter before it computes a block
    before = (sum(word << 64 * i for i, word in enumerate(counter)) - 1) % 2**256
    numpy_words = np.random.Philox(counter=before, key=key[0] + (key[1] << 64)).random_raw(4)
    assert philox4x64(counter, key) == tuple(int(word) for word in numpy_words)


@given(WORD, st.integers(0, 2**40), st.integers(0, 2**40))
def test_numbers_are_multiples_of_2_to_the_minus_53_below_1(seed: int, sample: int, position: int) -> None:
    for number in uniforms(seed, sample, position):
        assert 0 <= number < 1
        assert (number * 2**53).is_integer()


def test_seed_sample_and_position_each_matter() -> None:
    all_of_them = {uniforms(s, i, p) for s in range(10) for i in range(10) for p in range(10)}
    assert len(all_of_them) == 1000


def test_numbers_are_uniform_and_uncorrelated_along_every_axis() -> None:
    numbers = np.array([[uniforms(7, i, p) for p in range(200)] for i in range(200)])
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(numbers.var() - 1 / 12) < 0.002
    flat = numbers[..., 0]
    pairs = ((flat[1:], flat[:-1]), (flat[:, 1:], flat[:, :-1]), (flat, numbers[..., 1]))
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_a_drawn_seed_is_new_and_short() -> None:
    seeds = {draw_seed() for _ in range(100)}
    assert len(seeds) > 95
    assert all(0 <= seed < 2**32 < SEED_LIMIT for seed in seeds)
