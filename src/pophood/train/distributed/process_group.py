"""The process group: the processes that train one model together, as torchrun starts them.

Each process has a rank from 0 to size - 1; rank 0 prints and writes. Processes exchange sums of a few
numbers, values as JSON, and tensors, through torch.distributed with its gloo backend. A process that trains
on its own (`LOCAL`) never imports torch.distributed, and every operation returns what it was given.

All ranks must make the same calls in the same order, so whatever decides about a call must be the same on
every rank too. This file knows nothing of models or training.
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
from pophood.train.torch_install import import_torch

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # how long a process waits for the others in any operation
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
GRACE = 0.5  # seconds that gloo's threads get to finish before the interpreter ends
PEER_LOST = "another process of this run has ended or cannot be reached; its own message says why"


class RaisedOnRankZero(Cancelled):
    """Raised on the other ranks when rank 0 failed: rank 0 prints the message, this rank exits quietly."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """A group of one process: every operation returns what it is given. `GlooGroup` is one of several.

    group = ProcessGroup.from_environment().join()
    (total,) = group.sum(3.0)
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1  # processes on this machine

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> ProcessGroup:
        """Read torchrun's environment variables; `LOCAL` unless all of them are set for several processes."""
        if any(name not in environment for name in TORCHRUN_VARIABLES) or environment["WORLD_SIZE"] == "1":
            return LOCAL
        local_size = int(environment.get("LOCAL_WORLD_SIZE", "1"))
        return GlooGroup(int(environment["RANK"]), int(environment["WORLD_SIZE"]), local_size)

    @property
    def is_rank_zero(self) -> bool:
        """Return whether this process prints and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Return whether this is the only process."""
        return self.size == 1

    def threads(self, machine: int) -> int:
        """This process's share of the threads that the run may use on this machine."""
        return max(1, machine // self.local_size)

    def check_shard(self, shard: bool) -> None:
        """Raise BadInput if a model is to be sharded over a single process."""
        if shard and self.alone:
            raise BadInput(
                "--shard spreads a model over several processes, and this is the only one: start them with"
                " `torchrun --nproc-per-node 2 -m pophood tune ... --shard`, or leave --shard out"
            )

    def check_same(self, **facts: str) -> None:
        """Raise BadInput if the ranks differ in one of these facts."""
        for name, fact in facts.items():
            if self.any_reason(None if self.broadcast(fact) == fact else name) is not None:
                raise self.shared_error(
                    BadInput(
                        f"the processes differ in their {name}: give every machine the same command,"
                        " the same files, and the same versions"
                    )
                )

    def shared_error(self, error: PophoodError) -> PophoodError:
        """Return what this rank should raise for an error that every rank has met: only rank 0 prints it."""
        return error if self.is_rank_zero else RaisedOnRankZero(str(error))

    # ---- operations that several processes override; afterwards all ranks have the same value ----

    def join(self) -> ProcessGroup:
        """Wait until all processes have started, and return the group; EngineError if one is missing."""
        return self

    def sum(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over all ranks, in float64."""
        return values

    def broadcast(self, value: T, source: int = 0) -> T:
        """Return the value that rank `source` passes in; it must fit into JSON."""
        return value

    def on_rank_zero(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 only, and return its value on every rank; a PophoodError ends every rank."""
        return make()

    def any_reason(self, reason: str | None) -> str | None:
        """Return the reason of the lowest rank that has one, or None."""
        return reason

    def barrier(self) -> None:
        """Wait until every rank is here."""

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all ranks, which have the same shape, in the order of ranks."""
        return [tensor]

    def broadcast_tensors(self, tensors: Mapping[str, torch.Tensor] | None) -> Mapping[str, torch.Tensor]:
        """Return rank 0's tensors; each is sent when every rank looks it up, in the same order."""
        return tensors or {}


LOCAL = ProcessGroup()


@dataclass(frozen=True, slots=True)
class GlooGroup(ProcessGroup):
    """Several processes, on one machine or more, that talk through torch.distributed and gloo."""

    def join(self) -> ProcessGroup:
        """Wait until all processes have started, and return the group; EngineError if one is missing."""
        import atexit

        import_torch()
        import torch.distributed as dist

        if not dist.is_initialized():
            with translate_errors():
                dist.init_process_group("gloo", timeout=TIMEOUT)
            atexit.register(_leave)
        return self

    def sum(self, *values: float) -> tuple[float, ...]:
        """Return each value summed over all ranks, in float64."""
        import torch.distributed

        tensor = torch.tensor(values, dtype=torch.float64)
        with translate_errors():
            torch.distributed.all_reduce(tensor)
        return tuple(tensor.tolist())

    def broadcast(self, value: T, source: int = 0) -> T:
        """Return the value that rank `source` passes in; it must fit into JSON."""
        import torch.distributed

        text = json.dumps(value).encode() if self.rank == source else b""
        size = torch.tensor([len(text)])
        with translate_errors():
            torch.distributed.broadcast(size, source)
            letters = torch.frombuffer(bytearray(text or int(size)), dtype=torch.uint8)
            torch.distributed.broadcast(letters, source)
        result: T = json.loads(letters.numpy().tobytes())
        return result

    def on_rank_zero(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 only, and return its value on every rank; a PophoodError ends every rank."""
        if not self.is_rank_zero:
            error, value = self.broadcast(("", None))
            if error:
                raise RaisedOnRankZero(f"{error}: {value}")
            return value  # type: ignore[return-value]
        try:
            result = make()
        except PophoodError as error:
            self.broadcast((type(error).__name__, str(error)))
            raise
        self.broadcast(("", result))
        return result

    def any_reason(self, reason: str | None) -> str | None:
        """Return the reason of the lowest rank that has one, or None."""
        flags = self.sum(*(float(rank == self.rank and reason is not None) for rank in range(self.size)))
        sources = [rank for rank, flag in enumerate(flags) if flag]
        return self.broadcast(reason, sources[0]) if sources else None

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum(0.0)

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all ranks, which have the same shape, in the order of ranks."""
        import torch.distributed

        tensors = [torch.empty_like(tensor) for _ in range(self.size)]
        with translate_errors():
            torch.distributed.all_gather(tensors, tensor)
        return tensors

    def broadcast_tensors(self, tensors: Mapping[str, torch.Tensor] | None) -> Mapping[str, torch.Tensor]:
        """Return rank 0's tensors; each is sent when every rank looks it up, in the same order."""
        return _BroadcastTensors(self, tensors or {})


class _BroadcastTensors(Mapping[str, "torch.Tensor"]):
    """Rank 0's tensors: names and shapes are sent at once, each tensor when it is looked up."""

    def __init__(self, group: ProcessGroup, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors, self._group = tensors, group
        kinds = [(name, str(t.dtype).removeprefix("torch."), list(t.shape)) for name, t in tensors.items()]
        self._kinds = {name: (kind, shape) for name, kind, shape in group.broadcast(kinds)}

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch.distributed

        kind, shape = self._kinds[name]
        dtype: Any = getattr(torch, kind)
        own = self._group.is_rank_zero
        tensor = self._tensors[name].contiguous() if own else torch.empty(shape, dtype=dtype)
        with translate_errors():
            torch.distributed.broadcast(tensor.view(-1).view(torch.uint8), 0)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn torch.distributed's error about a lost process into an EngineError."""
    try:
        yield
    except RuntimeError as error:
        if _is_about_a_lost_process(error):
            raise EngineError(f"{PEER_LOST} ({str(error).splitlines()[0][:100]})") from error
        raise


def _is_about_a_lost_process(error: RuntimeError) -> bool:
    import torch.distributed as dist

    text = str(error)
    return isinstance(error, dist.DistError) or "gloo" in text or "Connection " in text


def _leave() -> None:
    """End gloo while Python still runs.

    Its threads release a tensor shortly after the caller has its result. If that happens while the
    interpreter shuts down, the process dies with SIGABRT: 3 of 120 processes did on two busy cores, and
    PyTorch pull request 179291 reports the same of PyTorch's own tests.
    """
    import torch.distributed as dist

    dist.destroy_process_group()
    time.sleep(GRACE)
