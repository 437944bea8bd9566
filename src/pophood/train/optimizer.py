"""AdamW with decay groups, and the learning rate of each step: warm-up, then a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pophood import _native
from pophood.train.model import Model
from pophood.train.settings import TrainSettings


def make_optimizer(model: Model, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over what is trained; only matrices decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if model.low:
        low: dict[Tensor, Tensor] = {model.get_parameter(name): rest for name, rest in model.low.items()}
        return HalvesAdamW(groups, low, settings)
    return torch.optim.AdamW(groups, lr=settings.rate, betas=settings.betas, eps=settings.epsilon, fused=True)


class HalvesAdamW(torch.optim.Optimizer):
    """AdamW for bfloat16 weights whose float32 masters are kept as two halves (`precision.py`).

    `factor` is what the next step multiplies all gradients by: clipping, without a walk of its own.
    """

    def __init__(
        self, groups: list[dict[str, Any]], low: dict[Tensor, Tensor], settings: TrainSettings
    ) -> None:
        super().__init__(groups, {"lr": settings.rate})
        self.low, self.betas, self.epsilon, self.factor = low, settings.betas, settings.epsilon, 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    for name in ("exp_avg", "exp_avg_sq"):
                        state[name] = torch.zeros(parameter.shape, dtype=torch.float32)
                state["step"] += 1
                count = float(state["step"])
                _native.adamw(
                    _bits(parameter),
                    _bits(self.low[parameter]),
                    _bits(parameter.grad),
                    state["exp_avg"].view(-1).numpy(),
                    state["exp_avg_sq"].view(-1).numpy(),
                    factor=self.factor,
                    rate=float(group["lr"]),
                    beta1=beta1,
                    beta2=beta2,
                    epsilon=self.epsilon,
                    decay=float(group["weight_decay"]),
                    correction1=1 - beta1**count,
                    correction2=1 - beta2**count,
                    threads=torch.get_num_threads(),
                )


def clip(optimizer: torch.optim.Optimizer, longest: float) -> float:
    """Scale the gradients so that all of them together are no longer than `longest`; their length before."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(optimizer, HalvesAdamW):
        return float(torch.nn.utils.clip_grad_norm_(trained, longest))
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    lengths = torch.stack(torch._foreach_norm(gradients)).double()  # summed in float32 inside
    length = float(torch.linalg.vector_norm(lengths))
    optimizer.factor = min(1.0, longest / (length + 1e-6))
    return length


def _bits(tensor: Tensor) -> NDArray[np.int16]:
    values: NDArray[np.int16] = tensor.detach().contiguous().view(torch.int16).view(-1).numpy()
    return values


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """The rate of step 0..steps-1: a straight line up, then a cosine down to `final_rate` of the top.

    >>> learning_rate(0, 100, TrainSettings(learning_rate=1.0, warmup=0.1))
    0.1
    """
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    floor = settings.final_rate
    return settings.rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
