"""The kernels of training touch their arrays alone, and refuse arrays that do not fit together."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pophood import _native
from tests import processes
from tests.needs import linux

kernels: Any = _native.training

GUARDED = """
import ctypes, mmap, sys
import numpy as np
from pophood._native import training as t

libc, kept = ctypes.CDLL(None, use_errno=True), []
PAGE = mmap.PAGESIZE

def placed(values):
    '''A copy of an array whose end (or begin: AT) touches a page that may be neither read nor written.'''
    values = np.ascontiguousarray(values)
    pages = -(-values.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(address + guard * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    first = PAGE if AT == "begin" else (pages + 1) * PAGE - values.nbytes
    array = np.frombuffer(memory, values.dtype, values.size, first).reshape(values.shape)
    array[...] = values
    kept.append(memory)
    return array

r = np.random.default_rng(4)
def halves(*shape):
    numbers = r.standard_normal(shape).astype(np.float32)
    return placed((numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.int16))
def floats(*shape):
    return placed(r.standard_normal(shape).astype(np.float32))

for n in (1, 2, 5, 15, 16, 17, 31, 37, 768):
    x, y, z, g, b, out, more = (halves(3, n) for _ in range(7))
    g, b, sums = halves(n), halves(n), (floats(n), floats(n))
    t.gelu(x, out, THREADS); t.gelu_back(x, y, out, THREADS)
    t.swiglu(x, y, out, THREADS); t.swiglu_back(x, y, z, out, more, THREADS)
    t.norm(x, g, b, 1e-5, False, out, THREADS); t.norm(x, g, None, 1e-5, True, out, THREADS)
    t.norm_back(x, g, 1e-5, False, y, out, *sums, THREADS)
    t.norm_back(x, g, 1e-5, True, y, out, None, None, THREADS)
    for rate in (0.0, 0.1):
        t.add_dropped(x, y, out, 7, rate, THREADS); t.add_dropped(None, y, out, 7, rate, THREADS)
        for first in (0, 2, n):
            score, d = halves(2, 9, n), halves(2, 9, n)
            t.soften(score, first, 5, rate, THREADS)
            t.soften_back(score, first, 5, rate, d, floats(2, 9), THREADS)
    turned, angles = halves(4, 3, 2 * n), floats(4, n)
    for back in (False, True):
        t.turn(turned, angles, placed(angles), back, halves(4, 3, 2 * n), THREADS)
    for columns, shape in ((True, (600, n)), (False, (n, 600))):
        t.cross_entropy(halves(*shape), placed(r.integers(0, 600, n)), 0.25, floats(n), columns, THREADS)
    high, low, mean, square = halves(n), halves(n), halves(n), placed(np.abs(halves(n)))
    t.adamw(high, low, halves(n), mean, square, factor=0.5, rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8,
            decay=0.1, correction1=0.1, correction2=0.001, seed=3, threads=THREADS)
    t.sum_of_squares(x, THREADS)
print("touched nothing else", flush=True)
import os; os._exit(0)  # the guarded pages must not be given back one by one
"""


@pytest.mark.parametrize("place", ["begin", "end"])
@pytest.mark.parametrize("isa", _native.available_isa().split())
def test_no_kernel_touches_what_lies_beside_its_arrays(isa: str, place: str) -> None:
    """A vector that reads past a row finds other numbers there or, once in a while, no memory at all."""
    linux()
    code = GUARDED.replace("AT ==", f"{place!r} ==").replace("THREADS", "2")
    environment = {**os.environ, "POPHOOD_ISA": isa}
    done = processes.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "touched nothing else\n"), done.stderr[-2_000:]


def adamw(*arrays: Any) -> object:
    return kernels.adamw(
        *arrays, factor=0.5, rate=1e-3, beta1=0.9, beta2=0.9, epsilon=1e-8, decay=0.1, correction1=0.1,
        correction2=0.1, seed=3, threads=1,
    )  # fmt: skip


# Kernels that compute every element alone, and how many arrays each takes.
BY_ELEMENT: dict[str, tuple[int, Callable[..., object]]] = {
    "gelu": (2, lambda *a: kernels.gelu(*a, 1)),
    "gelu_back": (3, lambda *a: kernels.gelu_back(*a, 1)),
    "swiglu": (3, lambda *a: kernels.swiglu(*a, 1)),
    "swiglu_back": (5, lambda *a: kernels.swiglu_back(*a, 1)),
    "add_dropped": (3, lambda *a: kernels.add_dropped(*a, 7, 0.1, 1)),
    "dropped": (2, lambda *a: kernels.add_dropped(None, *a, 7, 0.1, 1)),
    "adamw": (5, adamw),
}


@pytest.mark.parametrize("kernel", BY_ELEMENT)
def test_an_element_has_the_same_bits_in_a_full_vector_and_in_the_rest_of_one(kernel: str) -> None:
    """16 elements make a vector; what is left of an array goes another way to the same numbers."""
    count, call = BY_ELEMENT[kernel]
    numbers = np.abs(np.random.default_rng(2).standard_normal((count, 48))).astype(np.float32)
    given = [(row.view(np.uint32) >> 16).astype(np.uint16).view(np.int16) for row in numbers]
    whole = [array.copy() for array in given]
    call(*whole)
    assert any((a != b).any() for a, b in zip(whole, given, strict=True))
    for size in (1, 7, 15, 16, 17, 30, 33, 47):
        part = [array[:size].copy() for array in given]
        call(*part)
        for a, b in zip(part, whole, strict=True):
            assert a.tobytes() == b[:size].tobytes(), size


def halves(*shape: int) -> Any:
    return np.zeros(shape, np.int16)


def floats(*shape: int) -> Any:
    return np.ones(shape, np.float32)


# A kernel, its arrays, and the call with them.
CALLS: dict[str, tuple[list[Any], Callable[..., object]]] = {
    "gelu": ([halves(8), halves(8)], lambda *a: kernels.gelu(*a, 1)),
    "gelu_back": ([halves(8)] * 3, lambda *a: kernels.gelu_back(*a, 1)),
    "swiglu": ([halves(8)] * 3, lambda *a: kernels.swiglu(*a, 1)),
    "swiglu_back": ([halves(8)] * 5, lambda *a: kernels.swiglu_back(*a, 1)),
    "norm": (
        [halves(4, 8), halves(8), halves(8), halves(4, 8)],
        lambda x, g, b, y: kernels.norm(x, g, b, 1e-5, False, y, 1),
    ),
    "norm_back": (
        [halves(4, 8), halves(8), halves(4, 8), halves(4, 8), floats(8), floats(8)],
        lambda x, g, d_y, d_x, d_g, d_b: kernels.norm_back(x, g, 1e-5, False, d_y, d_x, d_g, d_b, 1),
    ),
    "soften_back": (
        [halves(2, 3, 8), halves(2, 3, 8), floats(2, 3)],
        lambda score, d, own: kernels.soften_back(score, 0, 5, 0.1, d, own, 1),
    ),
    "add_dropped": ([halves(4, 8)] * 3, lambda *a: kernels.add_dropped(*a, 7, 0.1, 1)),
    "turn": (
        [halves(4, 2, 8), floats(4, 4), floats(4, 4), halves(4, 2, 8)],
        lambda x, c, s, out: kernels.turn(x, c, s, False, out, 1),
    ),
    "cross_entropy": (
        [halves(4, 9), np.zeros(4, np.int64), floats(4)],
        lambda logits, targets, loss: kernels.cross_entropy(logits, targets, 1.0, loss, False, 1),
    ),
    "adamw": ([halves(8)] * 5, adamw),
}


@pytest.mark.parametrize("kernel", CALLS)
def test_an_array_that_does_not_fit_the_others_is_refused(kernel: str) -> None:
    arrays, call = CALLS[kernel]
    call(*(array.copy() for array in arrays))
    for wrong in range(len(arrays)):
        for change in (lambda a: a[:-1].copy(), lambda a: np.concatenate([a, a])):
            given = [array.copy() for array in arrays]
            given[wrong] = change(given[wrong])
            with pytest.raises(ValueError, match="differ in size"):
                call(*given)


@pytest.mark.parametrize(("shape", "first"), [((3, 8), 0), ((1, 2, 3, 8), 0), ((2, 3, 8), -1)])
def test_scores_are_matrices_and_begin_at_a_key(shape: tuple[int, ...], first: int) -> None:
    with pytest.raises(ValueError, match="differ in size"):
        kernels.soften(halves(*shape), first, 5, 0.1, 1)


def test_a_head_that_is_turned_has_pairs() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        kernels.turn(halves(4, 2, 7), floats(4, 3), floats(4, 3), False, halves(4, 2, 7), 1)


@pytest.mark.parametrize("target", [-1, 9])
@pytest.mark.parametrize("columns", [True, False])
def test_a_target_beside_the_vocabulary_is_refused(target: int, columns: bool) -> None:
    logits = halves(9, 2) if columns else halves(2, 9)
    with pytest.raises(IndexError, match="no token"):
        kernels.cross_entropy(logits, np.array([0, target]), 1.0, floats(2), columns, 1)


def test_the_mask_of_a_seed_is_the_hash_that_is_written_down() -> None:
    """Resumed runs draw the masks of their seed again: the hash (lowbias32) may not change with a kernel."""

    def hashed(x: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
        return x ^ (x >> np.uint32(16))

    seed, rate, rows, columns = 7, 0.3, 5, 133
    ones = np.full((rows, columns), 0x3F80, np.int16)  # bfloat16's 1
    out = np.empty_like(ones)
    kernels.add_dropped(None, ones, out, seed, rate, 1)
    keys = hashed(np.array([seed] * rows, np.uint32) ^ hashed(np.arange(rows, dtype=np.uint32)))
    random = hashed(np.add.outer(keys, np.arange(columns, dtype=np.uint32)))
    dropped = (random >> np.uint32(1)) < np.uint32(rate * 2**31)  # 31 bits of it
    assert 0.2 < dropped.mean() < 0.4
    assert np.array_equal(out == 0, dropped)
