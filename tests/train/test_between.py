"""What lies between two products in bfloat16: torch's float32 results within bfloat16's rounding."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pophood import _native
from pophood.train.model import ops as between
from pophood.train.model.attention import WHOLE, attend
from tests import processes

ROUNDING = 2**-7


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Lively bfloat16 numbers that learn."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2
    return made.to(torch.bfloat16).requires_grad_()


def compared(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Results and gradients of `ours` on bfloat16 beside those of `theirs` on the same numbers in float32."""
    exact = [x.detach().float().requires_grad_() for x in inputs]
    results = ours(*inputs), theirs(*exact)
    weight = torch.randn(results[1].shape, generator=torch.Generator().manual_seed(9)).to(torch.bfloat16)
    mine = torch.autograd.grad(results[0], inputs, weight)
    other = torch.autograd.grad(results[1], exact, weight.float())
    for a, b in zip((results[0], *mine), (results[1], *other), strict=True):
        assert a.dtype is torch.bfloat16
        assert (a.float() - b).norm() < ROUNDING * b.norm()
        assert (a.float() - b).abs().max() < 2 * ROUNDING * b.abs().max()


@pytest.mark.parametrize("size", [1, 15, 16, 33, 768])
def test_gelu(size: int) -> None:
    compared(between.gelu, lambda x: F.gelu(x, approximate="tanh"), numbers(5, size))


@pytest.mark.parametrize("size", [1, 15, 16, 33, 576])
def test_swiglu(size: int) -> None:
    compared(between.swiglu, lambda gate, up: F.silu(gate) * up, numbers(5, size), numbers(5, size, seed=1))


@pytest.mark.parametrize("size", [2, 15, 16, 33, 768])
def test_layer_norm(size: int) -> None:
    compared(
        lambda x, gain, bias: between.norm(x, gain, bias, 1e-5, False),
        lambda x, gain, bias: F.layer_norm(x, (size,), gain, bias, 1e-5),
        numbers(3, 25, size),
        numbers(size, seed=1),
        numbers(size, seed=2),
    )


@pytest.mark.parametrize("size", [2, 15, 16, 33, 576])
def test_rms_norm(size: int) -> None:
    compared(
        lambda x, gain: between.norm(x, gain, None, 1e-5, True),
        lambda x, gain: F.rms_norm(x, (size,), gain, 1e-5),
        numbers(3, 25, size),
        numbers(size, seed=1),
    )


@pytest.mark.parametrize("size", [2, 6, 32, 64, 96])
def test_turning_by_angles(size: int) -> None:
    angles = torch.rand(2, 7, 1, size // 2) * 6
    compared(
        lambda x: between.turn(x, angles.cos(), angles.sin()),
        lambda x: between.turn(x, angles.cos(), angles.sin()),  # float32: torch's own operations
        numbers(2, 7, 3, size),
    )


@pytest.mark.parametrize(("length", "heads", "keys"), [(2, 2, 2), (17, 4, 2), (256, 2, 1), (300, 6, 2)])
def test_attention(length: int, heads: int, keys: int) -> None:
    made = [numbers(2, length, n, 16, seed=seed) for n, seed in ((heads, 1), (keys, 2), (keys, 3))]
    made[0] = (made[0].detach() / 8).requires_grad_()  # scores of about unit size: theirs are rounded too
    compared(lambda q, k, v: attend(q, k, v, WHOLE), lambda q, k, v: attend(q, k, v, WHOLE), *made)


def test_dropped_attention_is_the_mean_of_many_and_goes_back_by_its_own_mask() -> None:
    q, k, v = (numbers(1, 40, 2, 16, seed=n) for n in range(3))
    torch.manual_seed(0)
    whole = attend(q, k, v, WHOLE).detach().float()
    many = torch.stack([attend(q, k, v, WHOLE, 0.25).detach().float() for _ in range(400)])
    assert (many.mean(0) - whole).norm() < 0.05 * whole.norm()
    assert (many.std(0) > 0).float().mean() > 0.9
    # Values enter linearly: with the mask of forward, z(v + e) - z(v) along e is the gradient along e.
    state = torch.get_rng_state()
    z = attend(q, k, v, WHOLE, 0.25)
    (slope,) = torch.autograd.grad(z, v, torch.ones_like(z))
    torch.set_rng_state(state)
    moved = attend(q, k, (v * 2).detach(), WHOLE, 0.25).detach()
    assert float((moved.float() - z.detach().float()).sum()) == pytest.approx(
        float((slope.float() * v.detach().float()).sum()), rel=0.05, abs=1.0
    )


def test_what_is_kept_less_is_the_same() -> None:
    x = numbers(4, 32)
    made = between.gelu(x)
    with between.recomputed(made, lambda: between.gelu(x)):
        product = made @ made.detach().T
    (again,) = torch.autograd.grad(product, x, torch.ones_like(product))
    made = between.gelu(x)
    product = made @ made.detach().T
    assert torch.equal(again, torch.autograd.grad(product, x, torch.ones_like(product))[0])


def test_a_mean_square_follows_slow_changes() -> None:
    """Rounded to the nearest, 8 bits would stand still at a change of 0.1 % a step."""
    n = 4096
    high, low, mean, square = (np.zeros(n, np.int16) for _ in range(4))
    gradient = between.bits(torch.full((n,), 1.0, dtype=torch.bfloat16))
    for step in range(1, 801):
        _native.training.adamw(
            high,
            low,
            gradient,
            mean,
            square,
            factor=1.0,
            rate=0.0,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            decay=0.0,
            correction1=1 - 0.9**step,
            correction2=1 - 0.999**step,
            seed=step,
            threads=2,
        )
    values = (square.view(np.uint16).astype(np.uint32) << 15).view(np.float32)
    assert values.mean() == pytest.approx(1 - 0.999**800, rel=0.005)
    assert values.std() < 0.05


PROGRAM = """
import hashlib, sys
import numpy as np
from pophood._native import training as t
r = np.random.default_rng(4)
def halves(*shape):
    numbers = r.standard_normal(shape).astype(np.float32)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
found = hashlib.sha256()
for n in (5, 16, 37, 768):
    x, y, z, g = halves(9, n), halves(9, n), halves(9, n), halves(n)
    out, more = np.zeros_like(x), np.zeros_like(x)
    sums = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for call in (
        lambda: t.gelu(x, out, THREADS), lambda: t.gelu_back(x, y, out, THREADS),
        lambda: t.swiglu(x, y, out, THREADS), lambda: t.swiglu_back(x, y, z, out, more, THREADS),
        lambda: t.norm(x, g, g, 1e-5, False, out, THREADS),
        lambda: t.norm(x, g, None, 1e-5, True, out, THREADS),
        lambda: t.norm_back(x, g, 1e-5, False, y, out, *sums, THREADS),
        lambda: t.norm_back(x, g, 1e-5, True, y, out, sums[0], None, THREADS),
        lambda: t.add_dropped(x, y, out, 7, 0.1, THREADS),
        lambda: t.add_dropped(None, y, out, 7, 0.0, THREADS),
    ):
        call()
        for array in (out, more, *sums):
            found.update(array.tobytes())
    score, d = halves(3, 9, n), halves(3, 9, n)
    own = r.standard_normal((3, 9)).astype(np.float32)
    t.soften_back(score, 2, 5, 0.1, d, own, THREADS); found.update(score.tobytes() + d.tobytes())
    t.soften(d, 0, 5, 0.1, THREADS); found.update(d.tobytes())
    logits, loss = halves(1500, n), np.empty(n, np.float32)
    for columns, logits in ((True, logits), (False, np.ascontiguousarray(logits.T))):
        t.cross_entropy(logits, r.integers(0, 1500, n), 0.25, loss, columns, THREADS)
        found.update(logits.tobytes() + loss.tobytes())
    high, low, mean, square = halves(n), halves(n), halves(n), np.abs(halves(n))
    t.adamw(high, low, halves(n), mean, square, factor=0.5, rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8,
            decay=0.1, correction1=0.1, correction2=0.001, seed=3, threads=THREADS)
    for array in (high, low, mean, square): found.update(array.tobytes())
    found.update(repr(t.sum_of_squares(x, THREADS)).encode())
print(found.hexdigest())
"""


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits() -> None:
    found = {}
    for isa in _native.available_isa().split():
        for threads in (1, 3):
            code = PROGRAM.replace("THREADS", str(threads))
            result = processes.run(
                [sys.executable, "-c", code],
                env={**os.environ, "POPHOOD_ISA": isa},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            found[isa, threads] = result.stdout
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize(
    "call",
    [
        lambda x: _native.training.gelu(x, x[:-1].copy(), 1),
        lambda x: _native.training.norm(x, x, x[:-1].copy(), 1e-5, False, x.copy(), 1),
        lambda x: _native.training.add_dropped(None, x, x.copy(), 0, 1.0, 1),
    ],
)
def test_sizes_that_do_not_fit_are_refused(call: Callable[[object], None]) -> None:
    with pytest.raises(ValueError, match=r"differ in size|below 1"):
        call(np.zeros(32, np.int16))


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(IndexError):
        _native.training.cross_entropy(
            np.zeros((9, 2), np.int16), np.array([0, 9]), 1.0, np.zeros(2, np.float32), True, 1
        )
