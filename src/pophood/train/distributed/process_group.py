"""World: the processes that train one model together, as torchrun starts them. No training, no model.

Every process has a rank, 0 to size - 1; rank 0, the first, speaks and writes. What is said between them goes
through torch.distributed (gloo): sums of a few numbers, texts as JSON, tensors. A process that is alone has
size 1, never imports torch.distributed, and every call here gives back what it was given.

All ranks must make the same calls in the same order, so whatever decides about a call is itself agreed on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pophood.errors import BadInput, Cancelled, EngineError, PophoodError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
PATIENCE = timedelta(minutes=30)  # how long a process waits for the others
BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
GRACE = 0.5  # seconds: what a thread that is done may need to be given a core
GONE = "another process of this run has ended, or cannot be reached; its own words say why"


class ToldByFirst(Cancelled):
    """An error that all processes have; rank 0 says it, and this one ends in silence."""


@dataclass(frozen=True, slots=True)
class World:
    """Who this process is among how many; `World.here()` reads it from what torchrun has set.

    world = World.here().join()
    (total,) = world.sum(3.0)
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1  # processes on this machine

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> World:
        """From the environment variables of torchrun; without all of them, or with one process, alone."""
        if any(name not in environment for name in BY_TORCHRUN) or environment["WORLD_SIZE"] == "1":
            return ALONE
        size = int(environment["WORLD_SIZE"])
        return cls(int(environment["RANK"]), size, int(environment.get("LOCAL_WORLD_SIZE", "1")))

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def threads(self, machine: int) -> int:
        """Of the threads that this machine has for the run, those of this process."""
        return max(1, machine // self.local_size)

    def check_shard(self, shard: bool) -> None:
        """Raise BadInput if a model is to be spread over several processes, and there is one."""
        if shard and self.alone:
            raise BadInput(
                "--shard spreads a model over several processes, and this is one: start them with `torchrun"
                " --nproc-per-node 2 -m pophood tune ... --shard`, or leave --shard out"
            )

    def join(self) -> World:
        """Wait for all the others, once; EngineError where they do not come."""
        if self.alone:
            return self
        import atexit

        import torch.distributed as dist

        if not dist.is_initialized():
            with told():
                dist.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(_leave)
        return self

    # ---- what is agreed on: the same on every rank afterwards ----

    def sum(self, *values: float) -> tuple[float, ...]:
        """The sums over all ranks, in float64."""
        if self.alone:
            return values
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values, dtype=torch.float64)
        with told():
            dist.all_reduce(tensor)
        return tuple(tensor.tolist())

    def share(self, value: T, source: int = 0) -> T:
        """What the rank `source` has, which JSON must be able to say; that of the others is ignored."""
        if self.alone:
            return value
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.rank == source else b""
        size = torch.tensor([len(text)])
        with told():
            dist.broadcast(size, source)
            letters = torch.frombuffer(bytearray(text or int(size)), dtype=torch.uint8)
            dist.broadcast(letters, source)
        shared: T = json.loads(letters.numpy().tobytes())
        return shared

    def by_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, which alone calls it; a PophoodError there ends every rank."""
        if self.alone:
            return make()
        if not self.first:
            kind, value = self.share(("", None))
            if kind:
                raise ToldByFirst(f"{kind}: {value}")
            return value  # type: ignore[return-value]
        try:
            made = make()
        except PophoodError as error:
            self.share((type(error).__name__, str(error)))
            raise
        self.share(("", made))
        return made

    def agree(self, reason: str | None) -> str | None:
        """Why to stop: the reason of the lowest rank that has one, or None."""
        if self.alone:
            return reason
        asked = self.sum(*(float(rank == self.rank and reason is not None) for rank in range(self.size)))
        sources = [rank for rank, flag in enumerate(asked) if flag]
        return self.share(reason, sources[0]) if sources else None

    def error(self, error: PophoodError) -> PophoodError:
        """An error that all ranks have, as this one should raise it."""
        return error if self.first else ToldByFirst(str(error))

    def check_same(self, **facts: str) -> None:
        """Raise BadInput where the ranks differ in one of these."""
        for name, fact in facts.items():
            if self.agree(None if self.share(fact) == fact else name) is not None:
                raise self.error(
                    BadInput(
                        f"the processes differ in their {name}: give every machine the same command,"
                        " the same files, and the same versions"
                    )
                )

    def wait(self) -> None:
        """Until all ranks are here."""
        self.sum(0.0)

    def gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all ranks, alike in shape, in the order of ranks."""
        if self.alone:
            return [tensor]
        import torch
        import torch.distributed as dist

        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        with told():
            dist.all_gather(gathered, tensor)
        return gathered

    def tensors(self, tensors: Mapping[str, torch.Tensor] | None) -> Mapping[str, torch.Tensor]:
        """Rank 0's tensors on every rank, each sent when it is asked for (by all, in the same order)."""
        if self.alone:
            return tensors or {}
        return _Sent(self, tensors or {})


ALONE = World()


def _leave() -> None:
    """End gloo while Python still runs. Its threads let go of a tensor a moment after whoever waited for it
    has been told; one that does so while the interpreter ends takes the process down with SIGABRT (3 of 120
    processes on two busy cores; pytorch pull request 179291 tells the same of its own tests)."""
    import torch.distributed as dist

    dist.destroy_process_group()
    time.sleep(GRACE)


class _Sent(Mapping[str, "torch.Tensor"]):
    def __init__(self, world: World, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors, self._world = tensors, world
        kinds = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
        self._kinds = {name: (kind, shape) for name, kind, shape in world.share(kinds)}

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch
        import torch.distributed as dist

        kind, shape = self._kinds[name]
        dtype: Any = getattr(torch, kind)
        tensor = self._tensors[name].contiguous() if self._world.first else torch.empty(shape, dtype=dtype)
        with told():
            dist.broadcast(tensor.view(-1).view(torch.uint8), 0)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


@contextmanager
def told() -> Iterator[None]:
    """What torch.distributed raises when another process is gone, in words."""
    try:
        yield
    except RuntimeError as error:
        if is_gone(error):
            raise EngineError(f"{GONE} ({str(error).splitlines()[0][:100]})") from error
        raise


def is_gone(error: RuntimeError) -> bool:
    """Whether torch says with this that another process cannot be reached."""
    import torch.distributed as dist

    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "Connection " in text
