"""Saving while the disk is full, the process is killed, or the power goes: the last checkpoint is whole."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import sys
from pathlib import Path

import pytest

from pophood.errors import PophoodError
from pophood.train.checkpoint import save_load as checkpoint
from pophood.train.checkpoint.save_load import latest, load, save
from tests import needs, processes
from tests.conftest import ROOT
from tests.train.disk import Operation, watched
from tests.train.hashes import saved_hash, state_hash
from tests.train.kills import BEFORE, KEEP, NEW, old_checkpoints, state
from tests.train.power import PowerDisk


def whole(folder: Path) -> str:
    """Return the hash of the newest whole checkpoint."""
    path = latest(folder, lambda line: None)
    assert path is not None
    assert state_hash(load(path)) == saved_hash(path)
    return saved_hash(path)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_disk_is_full_at_every_write(tmp_path: Path) -> None:
    old, new = state_hash(state(BEFORE)), state_hash(state(NEW))
    failed: list[str] = []
    for fail_at in range(200):
        folder = tmp_path / str(fail_at)
        old_checkpoints(folder)
        seen: list[str] = []

        def tell(operation: Operation, seen: list[str] = seen, fail_at: int = fail_at) -> None:
            if operation.kind not in ("unlink", "rmdir"):
                seen.append(operation.kind)
                if len(seen) == fail_at + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with watched(tell):
            try:
                save(folder, state(NEW), KEEP)
                error = None
            except PophoodError as caught:
                error = str(caught)
        if len(seen) <= fail_at:
            break
        failed.append(seen[fail_at])
        renamed = "rename" in seen[:fail_at]
        assert whole(folder) == (new if renamed else old)
        if error is None:  # only what follows the save failed: deleting older checkpoints
            assert renamed
        else:
            found = re.search(r"is full: needed ([\d,]+) bytes for a checkpoint, free ([\d,]+) bytes", error)
            assert found, error
            assert "the last checkpoint is whole" in error
            assert int(found[1].replace(",", "")) > 2_000
            assert not left(folder)
        save(folder, state(NEW + 1), KEEP)
        assert whole(folder) == state_hash(state(NEW + 1))
        assert not left(folder)
        shutil.rmtree(folder)
    assert error is None
    assert {"create", "write", "fsync", "mkdir", "rename"} == set(failed)
    assert len(failed) > 15


def test_a_disk_that_is_too_full_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, "free_disk", lambda path: 1_000)
    written: list[str] = []
    with (
        watched(lambda operation: written.append(operation.kind)),
        pytest.raises(PophoodError, match=r"needed [\d,]+ bytes for a checkpoint, free 1,000 bytes"),
    ):
        save(tmp_path, state(NEW))
    assert not written
    assert whole(tmp_path) == state_hash(state(BEFORE))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO])
def test_other_errors_of_the_disk_are_one_line(tmp_path: Path, number: int) -> None:
    old_checkpoints(tmp_path)

    def tell(operation: Operation) -> None:
        if operation.kind == "write":
            raise OSError(number, os.strerror(number))

    with watched(tell), pytest.raises(PophoodError, match=os.strerror(number)):
        save(tmp_path, state(NEW))
    assert whole(tmp_path) == state_hash(state(BEFORE))
    assert not left(tmp_path)


def killed(folder: Path, *arguments: str) -> dict[str, object]:
    """Run tests/train/kills.py in a process that may fork and die, and return its output."""
    done = processes.run(
        [sys.executable, "-m", "tests.train.kills", str(folder), *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_killed_at_every_write_sync_and_rename(tmp_path: Path) -> None:
    needs.linux()
    found = killed(tmp_path, "every")
    assert found["lost"] == []
    assert found["kinds"] == ["create", "fsync", "mkdir", "rename", "rmdir", "unlink", "write"]
    assert isinstance(found["kills"], int)
    assert found["kills"] > 40
    assert found["old"] and found["new"]  # both came up


@pytest.mark.full
def test_killed_at_500_random_moments(tmp_path: Path) -> None:
    needs.linux()
    found = killed(tmp_path, "random", "500")
    assert found["lost"] == []
    assert found["kills"] == 500
    assert isinstance(found["saves"], int)
    assert found["saves"] > 100  # so kills fell between all kinds of moments


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 6))])
def test_the_power_goes_after_every_operation(tmp_path: Path, seed: int) -> None:
    """The state is old or new, never mixed, whichever unsynced data reaches the disk; new after `save`."""
    folder, chance = tmp_path / "disk" / "run", random.Random(seed)
    old_checkpoints(folder)
    operations: list[Operation] = []
    disk = PowerDisk(tmp_path / "disk")
    with watched(operations.append):
        save(folder, state(NEW), KEEP)
    old, new = state_hash(state(BEFORE)), state_hash(state(NEW))
    seen: set[tuple[str, bool]] = set()
    for count in range(len(operations) + 1):
        for number, how in enumerate(("nothing", "names", "data", "all", "some", "some", "some", "some")):
            after = tmp_path / f"after-{count}-{number}"
            disk.cut(after, how, chance)
            found = whole(after / "run")
            assert found in (old, new), (count, how)
            seen.add((how, found == new))
            if count == len(operations):
                assert found == new, how
            shutil.rmtree(after)
        if count < len(operations):
            disk(operations[count])
    assert {(how, False) for how in ("nothing", "names", "data", "all", "some")} <= seen


def test_the_simulated_power_cut_would_find_a_missing_sync(tmp_path: Path) -> None:
    """Without one kind of sync the replay loses or mixes data, so the test above can fail."""
    for missing in ("files", "folders"):
        folder = tmp_path / missing / "run"
        old_checkpoints(folder)
        disk, operations = PowerDisk(tmp_path / missing), list[Operation]()
        with watched(operations.append):
            save(folder, state(NEW), KEEP)
        for operation in operations:
            is_file = operation.path.suffix != "" and operation.kind == "fsync"
            if operation.kind != "fsync" or is_file == (missing == "folders"):
                disk(operation)
        after = tmp_path / f"after-{missing}"
        disk.cut(after, "names" if missing == "files" else "nothing", random.Random(0))
        assert whole(after / "run") != state_hash(state(NEW))


FIRST = {"into a folder that is there": "run", "into a new folder": "run/new", "two levels deep": "run/a/b"}


@pytest.mark.parametrize("place", FIRST)
def test_the_power_goes_during_the_first_save_of_a_run(tmp_path: Path, place: str) -> None:
    """Without an older checkpoint to fall back to, the new one is whole or absent.

    Once `save` has returned it is there, together with the folders that were made for it.
    """
    disk_root = tmp_path / "disk"
    (disk_root / "run").mkdir(parents=True)
    folder, chance, operations = disk_root / FIRST[place], random.Random(7), list[Operation]()
    disk = PowerDisk(disk_root)
    with watched(operations.append):
        save(folder, state(NEW), KEEP)
    seen: set[bool] = set()
    for count in range(len(operations) + 1):
        for number, how in enumerate(("nothing", "names", "data", "all", "some", "some", "some")):
            after = tmp_path / f"after-{count}-{number}"
            disk.cut(after, how, chance)
            path = latest(after / FIRST[place], lambda line: None)
            if path is not None:
                assert state_hash(load(path)) == saved_hash(path) == state_hash(state(NEW))
            assert path is not None or count < len(operations), how
            seen.add(path is not None)
            shutil.rmtree(after)
        if count < len(operations):
            disk(operations[count])
    assert seen == {True, False}


@pytest.mark.parametrize("missing", ["files", "the checkpoint", "its folder", "the folder above"])
def test_each_missing_sync_of_the_first_save_is_found(tmp_path: Path, missing: str) -> None:
    """Without one kind of sync the save is lost or damaged, so the replay above can fail."""
    disk_root = tmp_path / "disk"
    (disk_root / "run").mkdir(parents=True)
    folder, disk, operations = disk_root / "run" / "new", PowerDisk(disk_root), list[Operation]()
    with watched(operations.append):
        save(folder, state(NEW), KEEP)

    def left_out(operation: Operation) -> bool:
        path = operation.path
        kinds = {
            "files": path.suffix in (".safetensors", ".json"),
            "the checkpoint": path.name.endswith(".tmp"),
            "its folder": path == folder,
            "the folder above": path == folder.parent,
        }
        return operation.kind == "fsync" and kinds[missing]

    assert any(map(left_out, operations))
    for operation in operations:
        if not left_out(operation):
            disk(operation)
    after = tmp_path / "after"
    disk.cut(after, "names" if missing == "files" else "nothing", random.Random(0))
    assert latest(after / "run" / "new", lambda line: None) is None
