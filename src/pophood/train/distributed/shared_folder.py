"""The folder of a run of several processes: rank 0 reads and writes it, the others are told.

On another machine there may be no such folder, so nothing is read from it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pophood.train.distributed.process_group import World
from pophood.train.events import Event
from pophood.train.run.folder import Resumed, RunFolder, data_key
from pophood.train.run.plan import Plan

if TYPE_CHECKING:
    import torch

    from pophood.train.loop.trainer import Trainer
    from pophood.train.tune import Tuning


def folder_of(path: Path, world: World) -> RunFolder:
    """The folder as this process may use it."""
    return RunFolder(path) if world.alone else SharedFolder(path, world)


def agreed(plan: Plan, world: World) -> Plan:
    """Rank 0's plan."""
    return plan if world.alone else Plan.of(world.share(plan.as_dict()))


class SharedFolder(RunFolder):
    """As `RunFolder`; every rank must make the same calls, `note`, `events` and those at the end aside."""

    def __init__(self, path: Path, world: World) -> None:
        super().__init__(path)
        self.world, self.own = world, RunFolder(path)

    def facts(self) -> dict[str, Any]:
        """tune.json."""
        return self.world.by_first(self.own.facts)

    def check_free(self, *, overwrite: bool) -> None:
        """As `RunFolder.check_free`."""
        self.world.by_first(lambda: self.own.check_free(overwrite=overwrite))

    def check_same(self, tuning: Tuning) -> None:
        """As `RunFolder.check_same`."""
        self.world.by_first(lambda: self.own.check_same(tuning))

    def check_alike(self, tuning: Tuning) -> None:
        """As `RunFolder.check_alike`."""
        told = replace(tuning.settings, cache_limit=None)  # which goes by the disk
        self.world.check_same(data=data_key(tuning), model=str(tuning.lm.config), settings=str(told))

    def checkpoint(self, announce: Callable[[str], object]) -> Resumed:
        """The newest whole checkpoint, of which tensors are sent when they are asked for."""
        found: list[Mapping[str, torch.Tensor]] = []

        def find() -> dict[str, Any]:
            tensors, facts = self.own.checkpoint(announce)
            found.append(tensors)
            return dict(facts)

        facts = self.world.by_first(find)
        return self.world.tensors(found[0] if found else None), facts

    def begin(self, tuning: Tuning, *, overwrite: bool) -> None:
        """As `RunFolder.begin`."""
        self.world.by_first(lambda: self.own.begin(tuning, overwrite=overwrite))

    def note(self, event: Event) -> None:
        """One line of events.jsonl, on rank 0."""
        if self.world.first:
            self.own.note(event)

    def open_board(self, wanted: bool, *, resume: bool) -> None:
        """As `RunFolder.open_board`, on rank 0."""
        self.world.by_first(lambda: self.own.open_board(wanted, resume=resume))

    def close_board(self) -> None:
        """As `RunFolder.close_board`."""
        self.own.close_board()

    def best(self, trainer: Trainer, loss: float | None) -> Resumed | None:
        """As `RunFolder.best`, on every rank."""
        found: list[Mapping[str, torch.Tensor]] = []

        def find() -> dict[str, Any] | None:
            best = self.own.best(trainer, loss)
            if best is None:
                return None
            found.append(best[0])
            return dict(best[1])

        facts = self.world.by_first(find)
        return None if facts is None else (self.world.tensors(found[0] if found else None), facts)
