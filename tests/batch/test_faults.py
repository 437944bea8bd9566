"""A full disk, a kill, a power cut at every operation: no answer is lost, none comes twice."""

from __future__ import annotations

import errno
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pophood.batch import answers as module
from pophood.errors import BadInput, PophoodError
from tests.batch.finishing import FACTS, LINES, asked, run, told, wanted
from tests.train.disk import Operation, watched
from tests.train.power import PowerDisk

OLD = replace(FACTS, seed=1)  # of the answers that are replaced


class Killed(BaseException):
    """The process is dead: nothing that it would still do reaches the disk."""


def prepared(folder: Path, kind: str) -> Path:
    """Make a folder before a first run, in the middle of one with a torn end, or with answers to replace."""
    asked(folder)
    if kind == "resumed":
        run(folder, most=2)
        (folder / "answers.jsonl").write_bytes(told(folder) + b'{"line": 3, "ha')
    if kind == "overwritten":
        run(folder, OLD)
    return folder


def finished(folder: Path, whole: bytes, old: bytes) -> int:
    """Go on to the end; return how many lines were answered before.

    A run that replaces answers has replaced none of them, with their settings, or all.
    """
    try:
        done, _ = run(folder)
    except BadInput as refused:
        assert "another value of --seed" in str(refused) and told(folder) == old
        assert run(folder, OLD) == (len(LINES), 0)
        return run(folder, overwrite=True)[0]
    assert told(folder) == whole
    return done


@pytest.mark.parametrize("kind", ["first", "resumed", "overwritten"])
def test_the_disk_is_full_at_every_operation(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SYNC_EVERY", 0.0)
    whole, old = wanted(tmp_path / "whole"), wanted(tmp_path / "old", OLD)
    failed: list[str] = []
    for fail_at in range(200):
        folder = prepared(tmp_path / str(fail_at), kind)
        seen: list[str] = []

        def tell(operation: Operation, seen: list[str] = seen, fail_at: int = fail_at) -> None:
            if operation.kind != "unlink":
                seen.append(operation.kind)
                if len(seen) == fail_at + 1:
                    if operation.kind == "write":
                        operation.file.write(operation.data[: len(operation.data) // 2])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with watched(tell):
            try:
                run(folder, overwrite=kind == "overwritten")
                error = None
            except PophoodError as caught:
                error = str(caught)
        if len(seen) <= fail_at:
            break
        failed.append(seen[fail_at])
        assert error is not None and "the disk is full: needed" in error and "\n" not in error
        assert str(folder / "answers.jsonl") in error
        finished(folder, whole, old)
    assert error is None and told(folder) == whole
    assert {"write", "fsync"} <= set(failed) and len(failed) >= 8
    assert ("create" in failed) == (kind != "resumed")
    assert ("truncate" in failed) == (kind != "first")


@pytest.mark.parametrize("kind", ["first", "resumed", "overwritten"])
def test_killed_before_and_within_every_operation(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill within a write leaves a part of it. Two kills, one after the other, do no more harm than one."""
    monkeypatch.setattr(module, "SYNC_EVERY", 0.0)
    whole, old = wanted(tmp_path / "whole"), wanted(tmp_path / "old", OLD)
    kinds: set[str] = set()
    for number in range(400):
        kill_at, within = divmod(number, 3)  # before, after some bytes, after all bytes
        folder = prepared(tmp_path / str(number), kind)
        ended = killed(folder, kill_at, within, kinds, overwrite=kind == "overwritten")
        if ended:
            break
        killed(folder, kill_at % 5, 1, kinds, overwrite=False)
        finished(folder, whole, old)
        shutil.rmtree(folder)
    assert ended and number > 20
    assert {"write", "fsync", "rename"} <= kinds or kind == "resumed"


def killed(folder: Path, kill_at: int, within: int, kinds: set[str], *, overwrite: bool) -> bool:
    """Run until the operation with a number; return whether it ended before."""
    seen: list[str] = []

    def tell(operation: Operation) -> None:
        seen.append(operation.kind)
        if len(seen) > kill_at:
            if len(seen) == kill_at + 1:
                kinds.add(operation.kind)
                if operation.kind == "write" and within:
                    size = len(operation.data)
                    operation.file.write(operation.data[: size if within == 2 else size // 2])
            raise Killed

    with watched(tell):
        try:
            run(folder, overwrite=overwrite)
        except Killed:
            return False
        except PophoodError:
            return True
    return len(seen) <= kill_at


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(1, 6))])
@pytest.mark.parametrize("kind", ["first", "resumed", "overwritten"])
def test_the_power_goes_after_every_operation(
    tmp_path: Path, kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever unsynced data reaches the disk, the run goes on to the same bytes."""
    monkeypatch.setattr(module, "SYNC_EVERY", 0.0)
    whole, old = wanted(tmp_path / "whole"), wanted(tmp_path / "old", OLD)
    chance = random.Random(seed)
    folder = prepared(tmp_path / "disk", kind)
    disk, operations = PowerDisk(tmp_path / "disk"), list[Operation]()
    with watched(operations.append):
        run(folder, overwrite=kind == "overwritten")
    for count in range(len(operations) + 1):
        for number, how in enumerate(("nothing", "names", "data", "all", "some", "some", "some")):
            after = tmp_path / f"after-{count}-{number}"
            disk.cut(after, how, chance)
            done = finished(after, whole, old)
            if count == len(operations):
                assert done == len(LINES), how
            shutil.rmtree(after)
        if count < len(operations):
            disk(operations[count])


def test_the_simulated_power_cut_would_find_a_missing_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without syncs of the file answers are lost, so the test above can fail."""
    monkeypatch.setattr(module, "SYNC_EVERY", 0.0)
    folder, operations = asked(tmp_path / "disk"), list[Operation]()
    disk = PowerDisk(tmp_path / "disk")
    with watched(operations.append):
        run(folder)
    for operation in operations:
        if operation.kind != "fsync" or operation.path.name != "answers.jsonl":
            disk(operation)
    disk.cut(tmp_path / "after", "nothing", random.Random(0))
    assert told(tmp_path / "after") == b""


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES])
def test_other_errors_of_the_disk_are_one_line(tmp_path: Path, number: int) -> None:
    folder = asked(tmp_path / "run")
    run(folder, most=2)

    def tell(operation: Operation) -> None:
        if operation.kind == "write":
            raise OSError(number, os.strerror(number))

    with watched(tell), pytest.raises((PophoodError, OSError), match=os.strerror(number)):
        run(folder)
    assert run(folder) == (2, 4)
