"""AdamW with decay groups, and the learning rate of each step: warm-up, then a cosine."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pophood.train.model.ops import bits, threads, training
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings


class Optimizer(ABC):
    """Parameters in groups of like settings, and by parameter its moments, of torch.optim's names.

    Not a torch.optim.Optimizer: the first of those imports torch's compiler, 68 MiB and a second of start.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: TrainSettings) -> None:
        self.param_groups = [{"lr": settings.rate, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.betas, self.epsilon = settings.betas, settings.epsilon

    @abstractmethod
    def step(self) -> None:
        """Update every parameter that has a gradient."""

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def parameters(self) -> list[Tensor]:
        """All of them, group after group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def moments(self, parameter: Tensor, mean: torch.dtype, square: torch.dtype) -> dict[str, Tensor]:
        """Those of a parameter, nothing at first, after one more step."""
        state = self.state.setdefault(parameter, {})
        if not state:
            state["step"] = torch.tensor(0.0, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=mean)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=square)
        state["step"] += 1
        return state


def make_optimizer(model: Model, settings: TrainSettings) -> Optimizer:
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
    return AdamW(groups, settings)


class Idle(Optimizer):
    """Updates nothing: a step is timed, and nothing is learned."""

    def step(self) -> None:
        """Do nothing."""


class AdamW(Optimizer):
    """AdamW in float32, by the operation that torch.optim.AdamW(fused=True) calls."""

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            learned: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not learned:
                continue
            gradients = [p.grad for p in learned if p.grad is not None]
            moments = [self.moments(p, p.dtype, p.dtype) for p in learned]
            torch._fused_adamw_(
                learned,
                gradients,
                [state["exp_avg"] for state in moments],
                [state["exp_avg_sq"] for state in moments],
                [],
                [state["step"] for state in moments],
                lr=group["lr"],
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=group["weight_decay"],
                eps=self.epsilon,
                amsgrad=False,
                maximize=False,
            )


class HalvesAdamW(Optimizer):
    """AdamW for bfloat16 weights whose float32 masters are kept as two halves (`precision.py`).

    The moments take two bytes each (native/training.h says how), a quarter of a step's memory less; the loss
    curve is still that of float32 (benchmarks/same_learning.py).
    `factor` is what the next step multiplies all gradients by: clipping, without a walk of its own.
    """

    def __init__(
        self, groups: list[dict[str, Any]], low: dict[Tensor, Tensor], settings: TrainSettings
    ) -> None:
        super().__init__(groups, settings)
        self.low, self.factor = low, 1.0

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.moments(parameter, torch.bfloat16, torch.int16)
                count = int(state["step"])
                training.adamw(
                    bits(parameter).ravel(),
                    self.low[parameter].view(-1).numpy(),
                    bits(parameter.grad).ravel(),
                    bits(state["exp_avg"]).ravel(),
                    state["exp_avg_sq"].view(-1).numpy(),
                    factor=self.factor,
                    rate=float(group["lr"]),
                    beta1=beta1,
                    beta2=beta2,
                    epsilon=self.epsilon,
                    decay=float(group["weight_decay"]),
                    correction1=1 - beta1**count,
                    correction2=1 - beta2**count,
                    seed=count,
                    threads=threads(),
                )


def clip(optimizer: Optimizer, longest: float) -> float:
    """Scale the gradients so that all of them together are no longer than `longest`; their length before."""
    trained = optimizer.parameters()
    if not isinstance(optimizer, HalvesAdamW):
        return float(torch.nn.utils.clip_grad_norm_(trained, longest))
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    length = math.sqrt(sum(training.sum_of_squares(bits(gradient), threads()) for gradient in gradients))
    optimizer.factor = min(1.0, longest / (length + 1e-6))
    return length


def learning_rate(step: float, steps: int, settings: TrainSettings) -> float:
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
