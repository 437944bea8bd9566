"""The training kernels touch no memory besides their arrays, and refuse arrays whose sizes do not match."""

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

libc, regions = ctypes.CDLL(None, use_errno=True), []
PAGE = mmap.PAGESIZE

def placed(values):
    '''Copy an array to memory whose end (or beginning: AT) touches a page without any access rights.'''
    values = np.ascontiguousarray(values)
    pages = -(-values.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(address + guard * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    first = PAGE if AT == "begin" else (pages + 1) * PAGE - values.nbytes
    array = np.frombuffer(memory, values.dtype, values.size, first).reshape(values.shape)
    array[...] = values
    regions.append(memory)
    return array

r = np.random.default_rng(4)
def bfloats(*shape):
    numbers = r.standard_normal(shape).astype(np.float32)
    return placed((numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.int16))
def floats(*shape):
    return placed(r.standard_normal(shape).astype(np.float32))

for n in (1, 2, 5, 15, 16, 17, 31, 37, 768):
    x, y, z, g, b, out, more = (bfloats(3, n) for _ in range(7))
    g, b, sums = bfloats(n), bfloats(n), (floats(n), floats(n))
    t.gelu(x, out, THREADS); t.gelu_backward(x, y, out, THREADS)
    t.swiglu(x, y, out, THREADS); t.swiglu_backward(x, y, z, out, more, THREADS)
    t.norm(x, g, b, 1e-5, False, out, THREADS); t.norm(x, g, None, 1e-5, True, out, THREADS)
    t.norm_backward(x, g, 1e-5, False, y, out, *sums, THREADS)
    t.norm_backward(x, g, 1e-5, True, y, out, None, None, THREADS)
    for rate in (0.0, 0.1):
        t.dropout_add(x, y, out, 7, rate, THREADS); t.dropout_add(None, y, out, 7, rate, THREADS)
        for first in (0, 2, n):
            score, d = bfloats(2, 9, n), bfloats(2, 9, n)
            t.softmax(score, first, 5, rate, THREADS)
            t.softmax_backward(score, first, 5, rate, d, floats(2, 9), THREADS)
    heads, angles = bfloats(4, 3, 2 * n), floats(4, n)
    for inverse in (False, True):
        t.rope(heads, angles, placed(angles), inverse, bfloats(4, 3, 2 * n), THREADS)
    for columns, shape in ((True, (600, n)), (False, (n, 600))):
        t.cross_entropy(bfloats(*shape), placed(r.integers(0, 600, n)), 0.25, floats(n), columns, THREADS)
    weight, remainder, moment1, moment2 = bfloats(n), bfloats(n), bfloats(n), placed(np.abs(bfloats(n)))
    t.adamw(weight, remainder, bfloats(n), moment1, moment2, gradient_scale=0.5, learning_rate=1e-3,
            beta1=0.9, beta2=0.999, epsilon=1e-8,
            weight_decay=0.1, bias_correction1=0.1, bias_correction2=0.001, seed=3, threads=THREADS)
    t.sum_of_squares(x, THREADS)
print("touched nothing else", flush=True)
import os; os._exit(0)  # skip freeing the guarded pages one by one
"""


@pytest.mark.parametrize("place", ["begin", "end"])
@pytest.mark.parametrize("isa", _native.available_isa().split())
def test_no_kernel_touches_memory_beside_its_arrays(isa: str, place: str) -> None:
    """A vector load past the end of a row reads other numbers or, once in a while, crashes."""
    linux()
    code = GUARDED.replace("AT ==", f"{place!r} ==").replace("THREADS", "2")
    environment = {**os.environ, "POPHOOD_ISA": isa}
    result = processes.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "touched nothing else\n"), result.stderr[-2_000:]


def adamw(*arrays: Any) -> object:
    return kernels.adamw(
        *arrays, gradient_scale=0.5, learning_rate=1e-3, beta1=0.9, beta2=0.9, epsilon=1e-8, weight_decay=0.1,
        bias_correction1=0.1, bias_correction2=0.1, seed=3, threads=1,
    )  # fmt: skip


# Element-wise kernels, and the number of arrays that each takes.
BY_ELEMENT: dict[str, tuple[int, Callable[..., object]]] = {
    "gelu": (2, lambda *a: kernels.gelu(*a, 1)),
    "gelu_backward": (3, lambda *a: kernels.gelu_backward(*a, 1)),
    "swiglu": (3, lambda *a: kernels.swiglu(*a, 1)),
    "swiglu_backward": (5, lambda *a: kernels.swiglu_backward(*a, 1)),
    "dropout_add": (3, lambda *a: kernels.dropout_add(*a, 7, 0.1, 1)),
    "dropped": (2, lambda *a: kernels.dropout_add(None, *a, 7, 0.1, 1)),
    "adamw": (5, adamw),
}


@pytest.mark.parametrize("kernel", BY_ELEMENT)
def test_an_element_has_the_same_bits_in_a_full_and_in_a_partial_vector(kernel: str) -> None:
    """The end of an array, shorter than a vector of 16, takes another code path to the same numbers."""
    count, call = BY_ELEMENT[kernel]
    numbers = np.abs(np.random.default_rng(2).standard_normal((count, 48))).astype(np.float32)
    inputs = [(row.view(np.uint32) >> 16).astype(np.uint16).view(np.int16) for row in numbers]
    whole = [array.copy() for array in inputs]
    call(*whole)
    assert any((a != b).any() for a, b in zip(whole, inputs, strict=True))
    for size in (1, 7, 15, 16, 17, 30, 33, 47):
        results = [array[:size].copy() for array in inputs]
        call(*results)
        for a, b in zip(results, whole, strict=True):
            assert a.tobytes() == b[:size].tobytes(), size


@pytest.mark.parametrize("kernel", ["gelu", "gelu_backward", "swiglu", "swiglu_backward"])
def test_an_array_of_many_chunks_is_that_of_its_pieces(kernel: str) -> None:
    """A long array is shared out in chunks of 2^15 elements, each at its own place in every argument."""
    count, on_threads = BY_ELEMENT[kernel][0], getattr(kernels, kernel)
    numbers = np.random.default_rng(3).standard_normal((count, 3 * 2**15 + 17)).astype(np.float32)
    inputs = [(row.view(np.uint32) >> 16).astype(np.uint16).view(np.int16) for row in numbers]
    whole = [array.copy() for array in inputs]
    on_threads(*whole, 3)
    for start in range(0, numbers.shape[1], 5_000):
        pieces = [array[start : start + 5_000].copy() for array in inputs]
        on_threads(*pieces, 1)
        for piece, array in zip(pieces, whole, strict=True):
            assert piece.tobytes() == array[start : start + 5_000].tobytes(), start


def bfloats(*shape: int) -> Any:
    return np.zeros(shape, np.int16)


def floats(*shape: int) -> Any:
    return np.ones(shape, np.float32)


# Kernel -> its arrays, and a call with them.
CALLS: dict[str, tuple[list[Any], Callable[..., object]]] = {
    "gelu": ([bfloats(8), bfloats(8)], lambda *a: kernels.gelu(*a, 1)),
    "gelu_backward": ([bfloats(8)] * 3, lambda *a: kernels.gelu_backward(*a, 1)),
    "swiglu": ([bfloats(8)] * 3, lambda *a: kernels.swiglu(*a, 1)),
    "swiglu_backward": ([bfloats(8)] * 5, lambda *a: kernels.swiglu_backward(*a, 1)),
    "norm": (
        [bfloats(4, 8), bfloats(8), bfloats(8), bfloats(4, 8)],
        lambda x, g, b, y: kernels.norm(x, g, b, 1e-5, False, y, 1),
    ),
    "norm_backward": (
        [bfloats(4, 8), bfloats(8), bfloats(4, 8), bfloats(4, 8), floats(8), floats(8)],
        lambda x, g, d_y, d_x, d_g, d_b: kernels.norm_backward(x, g, 1e-5, False, d_y, d_x, d_g, d_b, 1),
    ),
    "softmax_backward": (
        [bfloats(2, 3, 8), bfloats(2, 3, 8), floats(2, 3)],
        lambda score, d, row_dot: kernels.softmax_backward(score, 0, 5, 0.1, d, row_dot, 1),
    ),
    "dropout_add": ([bfloats(4, 8)] * 3, lambda *a: kernels.dropout_add(*a, 7, 0.1, 1)),
    "rope": (
        [bfloats(4, 2, 8), floats(4, 4), floats(4, 4), bfloats(4, 2, 8)],
        lambda x, c, s, out: kernels.rope(x, c, s, False, out, 1),
    ),
    "cross_entropy": (
        [bfloats(4, 9), np.zeros(4, np.int64), floats(4)],
        lambda logits, targets, loss: kernels.cross_entropy(logits, targets, 1.0, loss, False, 1),
    ),
    "adamw": ([bfloats(8)] * 5, adamw),
}


@pytest.mark.parametrize("kernel", CALLS)
def test_an_array_that_does_not_fit_the_others_is_refused(kernel: str) -> None:
    arrays, call = CALLS[kernel]
    call(*(array.copy() for array in arrays))
    for wrong in range(len(arrays)):
        for change in (lambda a: a[:-1].copy(), lambda a: np.concatenate([a, a])):
            inputs = [array.copy() for array in arrays]
            inputs[wrong] = change(inputs[wrong])
            with pytest.raises(ValueError, match="differ in size"):
                call(*inputs)


@pytest.mark.parametrize(("shape", "first"), [((3, 8), 0), ((1, 2, 3, 8), 0), ((2, 3, 8), -1)])
def test_scores_must_be_matrices_with_a_first_position(shape: tuple[int, ...], first: int) -> None:
    with pytest.raises(ValueError, match="differ in size"):
        kernels.softmax(bfloats(*shape), first, 5, 0.1, 1)


def test_rope_needs_an_even_head_size() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        kernels.rope(bfloats(4, 2, 7), floats(4, 3), floats(4, 3), False, bfloats(4, 2, 7), 1)


@pytest.mark.parametrize("target", [-1, 9])
@pytest.mark.parametrize("columns", [True, False])
def test_a_target_outside_the_vocabulary_is_refused(target: int, columns: bool) -> None:
    logits = bfloats(9, 2) if columns else bfloats(2, 9)
    with pytest.raises(IndexError, match="outside the vocabulary"):
        kernels.cross_entropy(logits, np.array([0, target]), 1.0, floats(2), columns, 1)


def test_dropout_masks_are_lowbias32_hashes() -> None:
    """A resumed run computes its masks again from their seeds, so the hash must never change."""

    def hashed(x: np.ndarray[Any, np.dtype[np.uint32]]) -> np.ndarray[Any, np.dtype[np.uint32]]:
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
        return x ^ (x >> np.uint32(16))

    seed, rate, rows, columns = 7, 0.3, 5, 133
    ones = np.full((rows, columns), 0x3F80, np.int16)  # bfloat16's 1
    out = np.empty_like(ones)
    kernels.dropout_add(None, ones, out, seed, rate, 1)
    keys = hashed(np.array([seed] * rows, np.uint32) ^ hashed(np.arange(rows, dtype=np.uint32)))
    random = hashed(np.add.outer(keys, np.arange(columns, dtype=np.uint32)))
    dropped = (random >> np.uint32(1)) < np.uint32(rate * 2**31)  # compares 31 bits
    assert 0.2 < dropped.mean() < 0.4
    assert np.array_equal(out == 0, dropped)
