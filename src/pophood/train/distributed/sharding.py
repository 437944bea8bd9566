"""The model as several processes train it: each a part of every batch, as if it were one (DDP or FSDP2).

Model and loss are one forward pass here (`Pass`), because the output matrix is used outside the model's own,
where neither wrapper would know of it: DDP has to see every gradient come, FSDP every weight needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pophood.errors import BadInput
from pophood.train.distributed.process_group import ALONE, World, told
from pophood.train.model.loss import cross_entropy
from pophood.train.model.transformer import Model

if TYPE_CHECKING:
    from pophood.train.loop.step import Tensors


class Pass(nn.Module):
    """From a batch to its loss: the sum over its learned targets, times `scale`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Tensors, scale: float) -> Tensor:
        hidden = batch.hidden(self.model)
        return cross_entropy(hidden, self.model.output_weight, batch.targets, scale)


class Learner:
    """`model` and its loss on every process of a world; `shard`: each holds a part of every weight.

    Gradients of the losses, summed over processes, are in the parameters after the backward pass of a
    step's last batch. Raises BadInput for `shard` without others.
    """

    def __init__(self, model: Model, world: World = ALONE, *, shard: bool = False) -> None:
        self.model, self.world, self.shard = model, world, shard
        self._pass: nn.Module = Pass(model)
        world.check_shard(shard)
        if shard and model.master_remainder:
            raise BadInput("--shard spreads weights of 32 bits: use --precision f32")
        if shard:
            _shard(self._pass, model, world)
        elif not world.alone:
            with told(), warnings.catch_warnings(action="ignore", category=FutureWarning):  # of another name
                self._pass = nn.parallel.DistributedDataParallel(self._pass, broadcast_buffers=False)
        self._parts: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def loss(self, batch: Tensors, scale: float) -> Tensor:
        """The sum over the batch's learned targets, times `scale`, in nats; of this process alone."""
        with told():
            loss: Tensor = self._pass(batch, scale * self.world.size)  # both wrappers divide by the size
        return loss

    def learn(self, batch: Tensors, scale: float, *, last: bool) -> float:
        """Add the gradients of a `loss`; with the step's last, they are summed over processes. The loss."""
        with self._sending(last), told():
            loss = self.loss(batch, scale)
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()) / self.world.size

    @contextmanager
    def _sending(self, last: bool) -> Iterator[None]:
        if self.shard:
            self._pass.set_requires_gradient_sync(last)  # type: ignore[operator]
            yield
        elif last or self.world.alone:
            yield
        else:
            with self._pass.no_sync():  # type: ignore[operator]
                yield

    # ---- weights, which may be in parts ----

    @contextmanager
    def together(self) -> Iterator[None]:
        """While this lasts rank 0's `model` has whole weights where it learns, as any other model."""
        found = self.whole(self._parts)
        if not self.shard or not self.world.first:
            yield
            return
        places = {name: _place(self.model, name) for name in found}
        before = {name: owner[leaf] for name, (owner, leaf) in places.items()}
        for name, (owner, leaf) in places.items():
            owner[leaf] = nn.Parameter(found[name])
        try:
            yield
        finally:
            for name, (owner, leaf) in places.items():
                owner[leaf] = before[name]

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of this process's shapes, put together on rank 0; with shards the others get {}."""
        if not self.shard:
            return tensors
        made = {}
        for name, tensor in tensors.items():
            full = _full(tensor)
            if self.world.first:
                made[name] = full.detach()
        return made

    def part(self, like: Tensor, whole: Tensor) -> Tensor:
        """Of a whole tensor, what this process holds of one that is distributed as `like`."""
        if not self.shard:
            return whole
        from torch.distributed.tensor import distribute_tensor

        given: Any = like
        return distribute_tensor(whole, given.device_mesh, given.placements, src_data_rank=None)


def _place(model: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """Where a module keeps a parameter, and by which name."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner)._parameters, leaf


def _full(tensor: Any) -> Tensor:
    """A DTensor put together, by all of its processes; another tensor as it is."""
    if type(tensor) in (Tensor, nn.Parameter):
        return tensor  # type: ignore[no-any-return]
    with told():
        full: Tensor = tensor.full_tensor()
    return full


def _shard(forward: nn.Module, model: Model, world: World) -> None:
    """Spread every weight over the processes, block by block: while one computes, only its are whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with told():
        mesh = init_device_mesh("cpu", (world.size,))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(forward, mesh=mesh)
