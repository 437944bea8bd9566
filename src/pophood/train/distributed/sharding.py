"""Distributed training of one model: data parallel with DDP, or with every weight sharded by FSDP2.

Each process computes its own batches of a step; together they learn as one process with all of them would.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pophood.errors import BadInput
from pophood.train.distributed.process_group import LOCAL, ProcessGroup, translate_errors
from pophood.train.model.loss import BatchTensors, LossModule
from pophood.train.model.transformer import Model


class DistributedModel:
    """A model and its loss in every process of a group; with `shard` each holds a part of every weight.

    After `forward_backward` of a step's last batch the parameters hold the gradients summed over processes.
    Raises BadInput for `shard` with a single process.
    """

    def __init__(self, model: Model, group: ProcessGroup = LOCAL, *, shard: bool = False) -> None:
        self.model, self.group, self.shard = model, group, shard
        self._wrapped: nn.Module = LossModule(model)
        group.check_shard(shard)
        if shard and model.master_remainder:
            raise BadInput("--shard spreads weights of 32 bits: use --precision f32")
        if shard:
            _shard(self._wrapped, model, group)
        elif not group.alone:
            # FutureWarning: DDP still calls a torch function by its old name.
            with translate_errors(), warnings.catch_warnings(action="ignore", category=FutureWarning):
                self._wrapped = nn.parallel.DistributedDataParallel(self._wrapped, broadcast_buffers=False)
        self._trained: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def loss(self, batch: BatchTensors, scale: float) -> Tensor:
        """Return this process's loss: the sum over the batch's targets, times `scale` and the group's size.

        DDP and FSDP divide gradients by the size, which the factor undoes.
        """
        with translate_errors():
            loss: Tensor = self._wrapped(batch, scale * self.group.size)
        return loss

    def forward_backward(self, batch: BatchTensors, scale: float, *, last: bool) -> float:
        """Add the gradients of a batch, and return its loss in this process, without the factor of `loss`.

        With `last`, the step's last batch, gradients are summed over processes.
        """
        with self._synchronized(last), translate_errors():
            loss = self.loss(batch, scale)
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()) / self.group.size

    @contextmanager
    def _synchronized(self, last: bool) -> Iterator[None]:
        """Let DDP or FSDP exchange gradients only after the step's last batch."""
        if self.shard:
            self._wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]
            yield
        elif last or self.group.alone:
            yield
        else:
            with self._wrapped.no_sync():  # type: ignore[operator]
                yield

    # ---- weights, which may be sharded ----

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Give rank 0's `model` whole trained weights inside the block, in place of its shards."""
        full = self.full_state(self._trained)
        if not self.shard or not self.group.is_rank_zero:
            yield
            return
        slots = {name: _slot(self.model, name) for name in full}
        shards = {name: parameters[leaf] for name, (parameters, leaf) in slots.items()}
        for name, (parameters, leaf) in slots.items():
            parameters[leaf] = nn.Parameter(full[name])
        try:
            yield
        finally:
            for name, (parameters, leaf) in slots.items():
                parameters[leaf] = shards[name]

    def full_state(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return whole tensors; if they are sharded, only rank 0 gets them and the others get {}."""
        if not self.shard:
            return tensors
        full = {}
        for name, tensor in tensors.items():
            gathered = _full_tensor(tensor)  # every rank takes part, and all but rank 0 drop it at once
            if self.group.is_rank_zero:
                full[name] = gathered.detach()
        return full

    def shard_like(self, like: Tensor, full: Tensor) -> Tensor:
        """Return this process's shard of a whole tensor, distributed as `like` is."""
        if not self.shard:
            return full
        from torch.distributed.tensor import distribute_tensor

        sharded: Any = like
        return distribute_tensor(full, sharded.device_mesh, sharded.placements, src_data_rank=None)


def _slot(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Return the dictionary in which a module keeps a parameter, and its key there."""
    module, _, leaf = name.rpartition(".")
    return model.get_submodule(module)._parameters, leaf


def _full_tensor(tensor: Any) -> Tensor:
    """Gather a DTensor from all processes; return any other tensor unchanged."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor  # type: ignore[no-any-return]
    with translate_errors():
        full: Tensor = tensor.full_tensor()
    return full


def _shard(loss_module: nn.Module, model: Model, group: ProcessGroup) -> None:
    """Shard every weight over the processes by block, so that only the running block's weights are whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with translate_errors():
        mesh = init_device_mesh("cpu", (group.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(loss_module, mesh=mesh)
