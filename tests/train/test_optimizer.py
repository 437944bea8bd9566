"""The learning-rate schedule, checked by hand, and gradient clipping with every optimizer."""

from __future__ import annotations

import math

import pytest
import torch

from pophood.train.loop.optimizer import AdamW, Optimizer, SplitMasterAdamW, clip, learning_rate
from pophood.train.settings import TrainSettings

# (steps, warm-up) -> rates by hand, for a peak of 1 and a final rate of a tenth. The cosine's values are
# 0.1 + 0.9 (1 + cos a) / 2 = 0.55 + 0.45 cos a, where a is 0 at the first step after the warm-up.
BY_HAND = {
    (10, 0.2): {0: 0.5, 1: 1.0, 2: 1.0, 6: 0.55, 9: 0.55 + 0.45 * math.cos(7 / 8 * math.pi)},
    (100, 0.05): {0: 0.2, 3: 0.8, 4: 1.0, 5: 1.0, 6: 0.55 + 0.45 * math.cos(math.pi / 95), 99: 0.1002461},
    (8, 0.05): {0: 1.0, 1: 1.0, 7: 0.55 + 0.45 * math.cos(6 / 7 * math.pi)},
    (3, 0.0): {0: 1.0, 1: 1.0, 2: 0.55},
    (1, 0.5): {0: 1.0},
    (4, 1.0): {0: 0.25, 1: 0.5, 2: 0.75, 3: 1.0},
}


@pytest.mark.parametrize(("steps", "warmup"), BY_HAND)
def test_rates_by_hand(steps: int, warmup: float) -> None:
    settings = TrainSettings(learning_rate=1.0, warmup=warmup, final_rate=0.1)
    for step, rate in BY_HAND[steps, warmup].items():
        assert learning_rate(step, steps, settings) == pytest.approx(rate, rel=1e-6), step
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    top = rates.index(1.0)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top + 1 :] == sorted(rates[top + 1 :], reverse=True)


@pytest.mark.parametrize("steps", range(1, 41))
def test_a_short_run_has_one_warm_up_step(steps: int) -> None:
    """A warm-up of 5 % is at most 2 of 40 steps, so even few steps learn at nearly the full rate."""
    settings = TrainSettings(learning_rate=1.0)
    rates = [learning_rate(step, steps, settings) for step in range(steps)]
    assert rates.index(1.0) <= 1
    assert sum(rates) / steps > 0.5


def optimizer_of(kind: str, gradients: list[torch.Tensor], rate: float = 1e-2) -> Optimizer:
    """Make an optimizer for parameters of ones that have these gradients."""
    settings = TrainSettings(method="full", learning_rate=rate, weight_decay=0.0, epsilon=1e-3)
    dtype = torch.bfloat16 if kind == "split" else torch.float32
    parameters = [torch.nn.Parameter(torch.ones_like(gradient, dtype=dtype)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.to(dtype).clone()
    groups = [{"params": parameters, "weight_decay": 0.0}]
    if kind == "split":
        remainders: dict[torch.Tensor, torch.Tensor] = {
            p: torch.zeros(p.shape, dtype=torch.int16) for p in parameters
        }
        return SplitMasterAdamW(groups, remainders, settings)
    return AdamW(groups, settings)


def step_gradients(optimizer: Optimizer) -> list[torch.Tensor]:
    """Return the clipped gradients that the next step uses, as its first moments show them."""
    optimizer.step()
    return [optimizer.state[p]["exp_avg"].float() / (1 - optimizer.betas[0]) for p in optimizer.parameters()]


GRADIENTS = [torch.tensor([[0.25, -0.5], [0.125, 0.0]]), torch.tensor([0.5, 0.25])]
NORM = math.sqrt(0.0625 + 0.25 + 0.015625 + 0.25 + 0.0625)  # 0.8


@pytest.mark.parametrize("kind", ["whole", "split"])
@pytest.mark.parametrize("max_norm", [0.81, 1.0, 5.0, 1e6])
def test_a_gradient_below_the_limit_is_unchanged(kind: str, max_norm: float) -> None:
    optimizer = optimizer_of(kind, GRADIENTS)
    assert clip(optimizer, max_norm) == pytest.approx(NORM, rel=1e-3)
    for gradient, expected in zip(step_gradients(optimizer), GRADIENTS, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "split"])
@pytest.mark.parametrize("max_norm", [0.79, 0.4, 0.01])
def test_a_longer_gradient_is_scaled_to_the_limit(kind: str, max_norm: float) -> None:
    optimizer = optimizer_of(kind, GRADIENTS)
    assert clip(optimizer, max_norm) == pytest.approx(NORM, rel=1e-3)
    gradients = step_gradients(optimizer)
    assert math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)) == pytest.approx(
        max_norm, rel=1e-2
    )
    for gradient, expected in zip(gradients, GRADIENTS, strict=True):
        torch.testing.assert_close(gradient, expected * max_norm / NORM, rtol=2e-2, atol=1e-6)


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_a_clipped_step_does_not_affect_the_next(kind: str) -> None:
    optimizer = optimizer_of(kind, GRADIENTS)
    clip(optimizer, 0.1)
    step_gradients(optimizer)
    for parameter in optimizer.parameters():
        del optimizer.state[parameter]
    for parameter, gradient in zip(optimizer.parameters(), GRADIENTS, strict=True):
        parameter.grad = gradient.to(parameter.dtype).clone()
    clip(optimizer, 1.0)
    for gradient, expected in zip(step_gradients(optimizer), GRADIENTS, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-2, atol=1e-6)
