"""The bfloat16 operations agree with torch's float32 operations within the rounding of bfloat16."""

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
from pophood.train.model import ops
from pophood.train.model.attention import WHOLE, attend
from tests import processes

ROUNDING = 2**-7


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Random trainable bfloat16 numbers."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2
    return made.to(torch.bfloat16).requires_grad_()


def assert_agrees(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare results and gradients of `ours` in bfloat16 with those of `theirs` in float32."""
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
    assert_agrees(ops.gelu, lambda x: F.gelu(x, approximate="tanh"), numbers(5, size))


@pytest.mark.parametrize("size", [1, 15, 16, 33, 576])
def test_swiglu(size: int) -> None:
    assert_agrees(ops.swiglu, lambda gate, up: F.silu(gate) * up, numbers(5, size), numbers(5, size, seed=1))


@pytest.mark.parametrize("size", [2, 15, 16, 33, 768])
def test_layer_norm(size: int) -> None:
    assert_agrees(
        lambda x, gain, bias: ops.norm(x, gain, bias, 1e-5, False),
        lambda x, gain, bias: F.layer_norm(x, (size,), gain, bias, 1e-5),
        numbers(3, 25, size),
        numbers(size, seed=1),
        numbers(size, seed=2),
    )


@pytest.mark.parametrize("size", [2, 15, 16, 33, 576])
def test_rms_norm(size: int) -> None:
    assert_agrees(
        lambda x, gain: ops.norm(x, gain, None, 1e-5, True),
        lambda x, gain: F.rms_norm(x, (size,), gain, 1e-5),
        numbers(3, 25, size),
        numbers(size, seed=1),
    )


@pytest.mark.parametrize("size", [2, 6, 32, 64, 96])
def test_rope(size: int) -> None:
    angles = torch.rand(2, 7, 1, size // 2) * 6
    assert_agrees(
        lambda x: ops.apply_rope(x, angles.cos(), angles.sin()),
        lambda x: ops.apply_rope(x, angles.cos(), angles.sin()),  # float32: torch's own operations
        numbers(2, 7, 3, size),
    )


@pytest.mark.parametrize(("length", "heads", "keys"), [(2, 2, 2), (17, 4, 2), (256, 2, 1), (300, 6, 2)])
def test_attention(length: int, heads: int, keys: int) -> None:
    made = [numbers(2, length, n, 16, seed=seed) for n, seed in ((heads, 1), (keys, 2), (keys, 3))]
    made[0] = (made[0].detach() / 8).requires_grad_()  # scores of about unit size: theirs are rounded too
    assert_agrees(lambda q, k, v: attend(q, k, v, WHOLE), lambda q, k, v: attend(q, k, v, WHOLE), *made)


def test_attention_dropout_keeps_the_mean_and_its_mask_in_backward() -> None:
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


def test_recomputed_values_give_the_same_gradients() -> None:
    x = numbers(4, 32)
    made = ops.gelu(x)
    with ops.recompute_saved(made, lambda: ops.gelu(x)):
        product = made @ made.detach().T
    (again,) = torch.autograd.grad(product, x, torch.ones_like(product))
    made = ops.gelu(x)
    product = made @ made.detach().T
    assert torch.equal(again, torch.autograd.grad(product, x, torch.ones_like(product))[0])


def test_the_second_moment_follows_slow_changes() -> None:
    """With rounding to nearest, 8 bits of mantissa would never follow a change of 0.1 % a step."""
    n = 4096
    weight, remainder, moment1, moment2 = (np.zeros(n, np.int16) for _ in range(4))
    gradient = ops.bits(torch.full((n,), 1.0, dtype=torch.bfloat16))
    for step in range(1, 801):
        _native.training.adamw(
            weight,
            remainder,
            gradient,
            moment1,
            moment2,
            gradient_scale=1.0,
            learning_rate=0.0,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            weight_decay=0.0,
            bias_correction1=1 - 0.9**step,
            bias_correction2=1 - 0.999**step,
            seed=step,
            threads=2,
        )
    values = (moment2.view(np.uint16).astype(np.uint32) << 15).view(np.float32)
    assert values.mean() == pytest.approx(1 - 0.999**800, rel=0.005)
    assert values.std() < 0.05


PROGRAM = """
import hashlib, sys
import numpy as np
from pophood._native import training as t
r = np.random.default_rng(4)
def bfloats(*shape):
    numbers = r.standard_normal(shape).astype(np.float32)
    return (numbers.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
digest = hashlib.sha256()
for n in (5, 16, 37, 768):
    x, y, z, g = bfloats(9, n), bfloats(9, n), bfloats(9, n), bfloats(n)
    out, more = np.zeros_like(x), np.zeros_like(x)
    sums = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for call in (
        lambda: t.gelu(x, out, THREADS), lambda: t.gelu_backward(x, y, out, THREADS),
        lambda: t.swiglu(x, y, out, THREADS), lambda: t.swiglu_backward(x, y, z, out, more, THREADS),
        lambda: t.norm(x, g, g, 1e-5, False, out, THREADS),
        lambda: t.norm(x, g, None, 1e-5, True, out, THREADS),
        lambda: t.norm_backward(x, g, 1e-5, False, y, out, *sums, THREADS),
        lambda: t.norm_backward(x, g, 1e-5, True, y, out, sums[0], None, THREADS),
        lambda: t.dropout_add(x, y, out, 7, 0.1, THREADS),
        lambda: t.dropout_add(None, y, out, 7, 0.0, THREADS),
    ):
        call()
        for array in (out, more, *sums):
            digest.update(array.tobytes())
    score, d = bfloats(3, 9, n), bfloats(3, 9, n)
    row_dot = r.standard_normal((3, 9)).astype(np.float32)
    t.softmax_backward(score, 2, 5, 0.1, d, row_dot, THREADS); digest.update(score.tobytes() + d.tobytes())
    t.softmax(d, 0, 5, 0.1, THREADS); digest.update(d.tobytes())
    logits, loss = bfloats(1500, n), np.empty(n, np.float32)
    for columns, logits in ((True, logits), (False, np.ascontiguousarray(logits.T))):
        t.cross_entropy(logits, r.integers(0, 1500, n), 0.25, loss, columns, THREADS)
        digest.update(logits.tobytes() + loss.tobytes())
    weight, remainder, moment1, moment2 = bfloats(n), bfloats(n), bfloats(n), np.abs(bfloats(n))
    t.adamw(weight, remainder, bfloats(n), moment1, moment2, gradient_scale=0.5, learning_rate=1e-3,
            beta1=0.9, beta2=0.999, epsilon=1e-8,
            weight_decay=0.1, bias_correction1=0.1, bias_correction2=0.001, seed=3, threads=THREADS)
    for array in (weight, remainder, moment1, moment2): digest.update(array.tobytes())
    digest.update(repr(t.sum_of_squares(x, THREADS)).encode())
print(digest.hexdigest())
"""


def test_every_instruction_set_and_number_of_threads_gives_the_same_bits() -> None:
    outputs: dict[tuple[str, int], str] = {}
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
            outputs[isa, threads] = result.stdout
    assert len(set(outputs.values())) == 1, outputs


@pytest.mark.parametrize(
    "call",
    [
        lambda x: _native.training.gelu(x, x[:-1].copy(), 1),
        lambda x: _native.training.norm(x, x, x[:-1].copy(), 1e-5, False, x.copy(), 1),
        lambda x: _native.training.dropout_add(None, x, x.copy(), 0, 1.0, 1),
    ],
)
def test_mismatched_sizes_are_refused(call: Callable[[object], None]) -> None:
    with pytest.raises(ValueError, match=r"differ in size|below 1"):
        call(np.zeros(32, np.int16))


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(IndexError):
        _native.training.cross_entropy(
            np.zeros((9, 2), np.int16), np.array([0, 9]), 1.0, np.zeros(2, np.float32), True, 1
        )
