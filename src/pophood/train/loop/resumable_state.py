"""The state that the next step of a run depends on, saved and restored; `checkpoint/` writes it.

Between two steps the whole state is trained weights, optimizer moments, random state, and the place of the
next batch in the data. A step reads nothing else, so a resumed run gives the same bits as one that was
never interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from pophood.errors import BadInput
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.distributed.sharding import DistributedModel
from pophood.train.loop.clock import UNCHANGED, Clock
from pophood.train.loop.optimizer import make_optimizer
from pophood.train.model.transformer import Model
from pophood.train.settings import TrainSettings

STATE_FIELDS = ("step", "epoch", "index", "steps", "best", "worse", "evaluated", "first_loss", "seconds")
ADDED_LATER = {"every": 0, "turn": (0, 0.0), "ratio": 1.0}  # facts that older checkpoints do not have


class ResumableState:
    """Model, optimizer and counters of a run. Every number that the next step reads is here."""

    def __init__(self, model: Model, settings: TrainSettings, group: ProcessGroup, *, shard: bool) -> None:
        self.model, self.settings, self.group = model, settings, group
        self.distributed = DistributedModel(model, group, shard=shard)
        self.optimizer = make_optimizer(model, settings)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.step = self.epoch = self.index = 0
        self.steps, self.schedule_change = 0, UNCHANGED  # steps of the whole run; 0: not planned yet
        self.every = 0  # steps between evaluations; 0: not planned yet
        self.clock: Clock | None = None
        self.best: float | None = None  # lowest validation loss
        self.worse = 0  # evaluations since the best one
        self.evaluated = -1  # step of the last evaluation
        self.loss: float | None = None  # validation loss at that step
        self.first_loss: float | None = None  # training loss of step 1
        self.seconds = 0.0  # of training, including earlier processes
        self.saved = -1  # step of the last checkpoint

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors and facts to resume from; if the model is sharded, rank 0 alone gets them."""
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in self.trained.items():
            tensors[f"trained.{name}"] = parameter.detach()
            if name in self.model.master_remainder:
                tensors[f"low.{name}"] = self.model.master_remainder[name]
            moments = self.optimizer.state.get(parameter)
            if moments:
                tensors[f"mean.{name}"] = moments["exp_avg"]
                tensors[f"square.{name}"] = moments["exp_avg_sq"]
        facts: dict[str, Any] = {
            **{name: getattr(self, name) for name in STATE_FIELDS},
            "every": self.every,
            "turn": list(self.schedule_change),
            "ratio": self.clock.ratio if self.clock is not None else 1.0,
            "validation_loss": self.loss if self.evaluated == self.step else None,
            "settings": asdict(self.settings),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "shard": self.distributed.shard,
        }
        random = self.group.all_gather(torch.get_rng_state())
        states = {f"random.{rank}" if rank else "random": state for rank, state in enumerate(random)}
        full = self.distributed.full_state(tensors)
        return {**states, **{name: tensor.cpu() for name, tensor in full.items()}}, facts

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Resume from a saved state; raises BadInput if it is of another model or method."""
        self._check(tensors, facts)
        self.load_weights(tensors)
        for name, parameter in self.trained.items():
            if f"mean.{name}" in tensors:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(facts["step"]), device=parameter.device),
                    "exp_avg": self._moment(parameter, tensors[f"mean.{name}"]),
                    "exp_avg_sq": self._moment(parameter, tensors[f"square.{name}"]),
                }
        for name in STATE_FIELDS:
            setattr(self, name, facts[name])
        complete = {**ADDED_LATER, **facts}
        self.every, self.schedule_change = complete["every"], (complete["turn"][0], complete["turn"][1])
        if self.clock is not None:
            self.clock.ratio, self.clock.rough = complete["ratio"], False
        self.loss, self.saved = facts["validation_loss"], self.step
        for rank in range(self.group.size):  # a lookup is a broadcast, so every rank looks up every tensor
            random = tensors.get(f"random.{rank}" if rank else "random")
            if rank == self.group.rank:
                _set_random(random, self.settings.seed + rank + self.step * self.group.size)

    @torch.no_grad()
    def _moment(self, parameter: torch.Tensor, saved: torch.Tensor) -> torch.Tensor:
        """Return a saved moment on the device of its parameter, and with the same strides.

        The fused AdamW kernel walks both in memory order, and GPT-2's matrices are transposed views.
        """
        moment = self.distributed.shard_like(parameter, saved.to(parameter.device, copy=True))
        if moment.stride() == parameter.stride():
            return moment
        return torch.empty_like(parameter, dtype=moment.dtype).copy_(moment)

    @torch.no_grad()
    def load_weights(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the trained weights from a saved state."""
        for name, parameter in self.trained.items():
            parameter.copy_(self.distributed.shard_like(parameter, tensors[f"trained.{name}"]))
            if name in self.model.master_remainder:
                self.model.master_remainder[name].copy_(tensors[f"low.{name}"])

    def _check(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Raise BadInput unless a saved state has the tensors and facts of this run."""
        saved_names = {name for name in tensors if name.startswith("trained.")}
        if {f"trained.{name}" for name in self.trained} != saved_names:
            raise BadInput(
                "the checkpoint holds other tensors than this run trains: use the model and method it had"
            )
        if missing := sorted({*STATE_FIELDS, "validation_loss"} - facts.keys()):
            raise BadInput(f"the checkpoint lacks {', '.join(missing)}, so it is not one of a run")
        for name, parameter in self.trained.items():
            kinds = {"trained": parameter.dtype, "mean": torch.float32, "square": torch.float32}
            if name in self.model.master_remainder:
                kinds |= {"low": torch.int16, "mean": torch.bfloat16, "square": torch.int16}
            for kind, dtype in kinds.items():
                saved = tensors.get(f"{kind}.{name}", parameter.to(dtype))
                if saved.shape != parameter.shape or saved.dtype != dtype:
                    raise BadInput(
                        f"the checkpoint's {kind}.{name} is {saved.dtype} {tuple(saved.shape)}, this run's"
                        f" {dtype} {tuple(parameter.shape)}: use the model, precision and settings it had"
                    )


def _set_random(state: torch.Tensor | None, seed: int) -> None:
    """Restore a random state, or start from a seed if the checkpoint had fewer processes."""
    if state is None:
        torch.manual_seed(seed)
    else:
        torch.set_rng_state(state)
