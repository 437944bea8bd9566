"""Runs in several processes: `python -m tests.train.ranks DATA OUT RUNS-AS-JSON` under torchrun.

Every run is a case of `small.py` with changes: `shard`, `stop` (ask to stop at the n-th question, on the rank
`asks`), `poison` (a loss that is not a number at that step, on the rank `asks`), `go_on` (from OUT's newest
checkpoint). Each rank writes OUT.RANK.json: of every run its events, its state's hash, and its error.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch

from pophood.errors import PophoodError
from pophood.train.checkpoint.save_load import TrainerState, latest, load
from pophood.train.distributed.process_group import ProcessGroup
from pophood.train.events import as_line
from pophood.train.loop.trainer import Trainer
from tests.train.hashes import state_hash
from tests.train.small import Case, trainer_of


def one(data: Path, out: Path, group: ProcessGroup, fields: dict[str, Any]) -> dict[str, Any]:
    """Run to the end, and return the events, the hash and the error."""
    asks, stop, poison = (fields.pop(name, 0) for name in ("asks", "stop", "poison"))
    shard, go_on, changes = (fields.pop(name, None) for name in ("shard", "go_on", "changes"))
    place = out / str(fields.pop("folder", ""))
    asked = 0

    def should_stop() -> str | None:
        nonlocal asked
        asked += 1
        return "stopped" if stop and asked >= stop and group.rank == asks else None

    trainer = trainer_of(
        Case(**fields),
        data,
        out=place,
        should_stop=should_stop,
        group=group,
        shard=bool(shard),
        **{"precision": "f32", **(changes or {})},
    )
    if go_on:
        resume(trainer, group, place)
    if poison and group.rank == asks:
        trainer.model.register_forward_hook(
            lambda module, _, y: y * math.nan if module.training and trainer.step == poison - 1 else None
        )
    told: dict[str, Any] = {"events": [], "error": None}
    try:
        told["events"] += [json.loads(as_line(event)) for event in trainer.run()]
    except PophoodError as error:
        told["error"] = (type(error).__name__, str(error))
    state = trainer.state()
    told["hash"] = state_hash(state)
    if group.is_rank_zero:
        torch.save({name: t.clone() for name, t in state[0].items()}, place / "state.pt")
    return told


def resume(trainer: Trainer, group: ProcessGroup, out: Path) -> None:
    """Resume from the newest checkpoint that rank 0 has."""
    state: TrainerState | None = None
    if group.is_rank_zero:
        path = latest(out, print)
        assert path is not None
        state = load(path)
    facts = group.broadcast(dict(state[1]) if state else None)
    trainer.restore(group.broadcast_tensors(state[0] if state else None), facts or {})


def main() -> None:
    """Make all runs, one after the other."""
    torch.set_num_threads(1)
    data, out, runs = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    group = ProcessGroup.from_environment().join()
    told = {name: one(data, out, group, fields) for name, fields in runs.items()}
    out.with_name(f"{out.name}.{group.rank}.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
