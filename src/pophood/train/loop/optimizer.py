"""AdamW with weight-decay groups, gradient clipping, and the learning-rate schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from pophood.train.model import torch_private
from pophood.train.model.ops import bits, num_threads, training
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings


class Optimizer(ABC):
    """Parameter groups and per-parameter state, with the names of torch.optim.

    Not derived from torch.optim.Optimizer, because making one imports torch's compiler: 68 MiB and a second.
    """

    def __init__(self, groups: list[dict[str, Any]], settings: TrainSettings) -> None:
        self.param_groups = [{"lr": settings.rate, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.betas, self.epsilon = settings.betas, settings.epsilon

    @abstractmethod
    def step(self) -> None:
        """Update every parameter that has a gradient."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def parameters(self) -> list[Tensor]:
        """Return all parameters, group by group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def advance_state(self, parameter: Tensor, mean: torch.dtype, square: torch.dtype) -> dict[str, Tensor]:
        """Count one more step of a parameter and return its state; the moments start at zero."""
        state = self.state.setdefault(parameter, {})
        if not state:
            state["step"] = torch.tensor(0.0, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=mean)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=square)
        state["step"] += 1
        return state


def make_optimizer(model: Model, settings: TrainSettings) -> Optimizer:
    """Make AdamW (Loshchilov and Hutter 2019) for the trainable parameters; only matrices are decayed."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if model.master_remainder:
        remainders: dict[Tensor, Tensor] = {
            model.get_parameter(name): remainder for name, remainder in model.master_remainder.items()
        }
        return SplitMasterAdamW(groups, remainders, settings)
    return AdamW(groups, settings)


class NoOpOptimizer(Optimizer):
    """An optimizer that changes nothing, for timing a step."""

    def step(self) -> None:
        """Do nothing."""


class AdamW(Optimizer):
    """AdamW in float32, with the fused operation of torch.optim.AdamW(fused=True)."""

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            torch_private.fused_adamw(
                parameters,
                [p.grad for p in parameters if p.grad is not None],
                [self.advance_state(p, p.dtype, p.dtype) for p in parameters],
                lr=group["lr"],
                beta1=self.betas[0],
                beta2=self.betas[1],
                eps=self.epsilon,
                weight_decay=group["weight_decay"],
            )


class SplitMasterAdamW(Optimizer):
    """AdamW on float32 masters that are stored as a bfloat16 weight and a 16-bit remainder (`precision.py`).

    The moments take two bytes each (native/kernels/training_kernels.h), which saves a quarter of a step's
    memory; the loss curve is still that of float32 (benchmarks/same_learning.py). The next step multiplies
    all gradients by `gradient_scale`, so clipping needs no pass of its own.
    """

    def __init__(
        self, groups: list[dict[str, Any]], remainders: dict[Tensor, Tensor], settings: TrainSettings
    ) -> None:
        super().__init__(groups, settings)
        self.remainders, self.gradient_scale = remainders, 1.0

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        beta1, beta2 = self.betas
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.advance_state(parameter, torch.bfloat16, torch.int16)
                count = int(state["step"])
                training.adamw(
                    bits(parameter).ravel(),
                    self.remainders[parameter].view(-1).numpy(),
                    bits(parameter.grad).ravel(),
                    bits(state["exp_avg"]).ravel(),
                    state["exp_avg_sq"].view(-1).numpy(),
                    gradient_scale=self.gradient_scale,
                    learning_rate=float(group["lr"]),
                    beta1=beta1,
                    beta2=beta2,
                    epsilon=self.epsilon,
                    weight_decay=float(group["weight_decay"]),
                    bias_correction1=1 - beta1**count,
                    bias_correction2=1 - beta2**count,
                    seed=count,
                    threads=num_threads(),
                )


def clip(optimizer: Optimizer, max_norm: float) -> float:
    """Scale the gradients so that their joint norm is at most `max_norm`; return the norm before."""
    parameters = optimizer.parameters()
    if not isinstance(optimizer, SplitMasterAdamW):
        return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = math.sqrt(sum(training.sum_of_squares(bits(gradient), num_threads()) for gradient in gradients))
    optimizer.gradient_scale = min(1.0, max_norm / (norm + 1e-6))
    return norm


def learning_rate(step: float, steps: int, settings: TrainSettings) -> float:
    """Return the rate of step 0..steps-1: linear warm-up, then a cosine down to `final_rate` times the peak.

    >>> learning_rate(0, 100, TrainSettings(learning_rate=1.0, warmup=0.1))
    0.1
    """
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    floor = settings.final_rate
    return settings.rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))
