"""Kills of a process that saves: `python -m tests.train.kills FOLDER every | random COUNT`, a line of JSON.

One process imports torch and stays without threads; each save runs in a fork of it, which is killed with
SIGKILL before an operation, in the middle of a write, or at a random moment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from pophood.train.checkpoint.save_load import latest, load, save
from tests.train.disk import Operation, watched
from tests.train.hashes import saved_hash, state_hash

BEFORE, NEW, KEEP = 20, 30, 2
SIZES = ((7, 5), (33, 9), (4,))


def state(step: int) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Return a small state shaped like a run's, with values that follow from the step."""
    generator = torch.Generator().manual_seed(step)
    tensors = {"random": generator.get_state()}
    for i, size in enumerate(SIZES):
        for kind in ("trained", "mean", "square"):
            tensors[f"{kind}.{i}"] = torch.randn(size, generator=generator)
    return tensors, {"step": step, "validation_loss": 1.0 + step / 100 if step < NEW else None}


def old_checkpoints(folder: Path) -> None:
    """Save two checkpoints: the best one, and one that the next save deletes."""
    for step in (BEFORE - 10, BEFORE):
        save(folder, state(step), KEEP)


def judge(folder: Path) -> str:
    """Return the hash of the state to resume from; "lost" if there is none, "mixed" if it is damaged."""
    path = latest(folder, lambda line: None)
    if path is None:
        return "lost"
    return saved_hash(path) if state_hash(load(path)) == saved_hash(path) else "mixed"


def every(root: Path) -> dict[str, object]:
    """Kill before every operation of a save, and in the middle of every write."""
    names = {state_hash(state(BEFORE)): "old", state_hash(state(NEW)): "new"}
    found = {"old": 0, "new": 0}
    lost: list[str] = []
    kinds: set[str] = set()
    kills, kind = 0, ""
    for number in range(1000):
        at, half = divmod(number, 2)
        if half and kind != "write":
            continue
        folder = root / str(number)
        old_checkpoints(folder)
        (root / "kind").write_text("", encoding="utf-8")
        child = os.fork()
        if child == 0:
            die_at(folder, root / "kind", at, half)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, status
            break
        kills += 1
        kinds.add(kind := (root / "kind").read_text(encoding="utf-8"))
        what = names.get(judge(folder))
        if what is None:
            lost.append(f"{number} {kind}")
            continue
        found[what] += 1
        save(folder, state(NEW + 1), KEEP)  # and the next run goes on
        if judge(folder) != state_hash(state(NEW + 1)) or any(p.name[0] == "." for p in folder.iterdir()):
            lost.append(f"{number} {kind}, then the next")
    return {"kills": kills, "lost": lost, "kinds": sorted(kinds), **found}


def die_at(folder: Path, note: Path, at: int, half: int) -> None:
    """Save in a child process that is killed at the operation of this number; exit 0 if there are fewer."""
    count = 0

    def tell(operation: Operation) -> None:
        nonlocal count
        if count == at:
            descriptor = os.open(note, os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, operation.kind.encode())
            if half and operation.kind == "write":
                operation.file.write(operation.data[: len(operation.data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    with watched(tell):
        save(folder, state(NEW), KEEP)
    os._exit(0)


def at_random(root: Path, kills: int) -> dict[str, object]:
    """Repeatedly kill a process that saves without pause; each one resumes from the last one's state."""
    chance, lost, saves = random.Random(0), list[str](), 0
    done, folder = root / "done", root / "run"
    for number in range(kills):
        child = os.fork()
        if child == 0:
            save_on(folder, done)
        time.sleep(chance.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        finished = int(done.read_text(encoding="utf-8") or 0) if done.exists() else 0
        path = latest(folder, lambda line: None)
        if path is None:
            if finished:
                lost.append(f"{number}: none of {finished}")
            continue
        step = int(load(path)[1]["step"])
        saves = max(saves, step)
        if step < finished or state_hash(load(path)) != state_hash(state(step)):
            lost.append(f"{number}: {step} of {finished}")
    return {"kills": kills, "saves": saves, "lost": lost}


def save_on(folder: Path, done: Path) -> None:
    """Save step after step in a child process, and record each save that is done."""
    path = latest(folder, lambda line: None)
    step = 0 if path is None else int(load(path)[1]["step"])
    descriptor = os.open(done, os.O_WRONLY | os.O_CREAT)
    while True:
        step += 1
        save(folder, state(step), KEEP)
        os.pwrite(descriptor, b"%09d" % step, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    print(json.dumps(every(place) if sys.argv[2] == "every" else at_random(place, int(sys.argv[3]))))
