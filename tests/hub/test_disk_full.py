"""A full disk at every write in turn: the error has the sums, the old model stays, the pull resumes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pophood import hub as pophood_hub
from pophood.errors import PophoodError
from tests import needs, processes
from tests.hub.fake_hub import FakeHub, gpt2_files

REAL_OPEN = Path.open
FEW = ("config.json", "model.safetensors", "tokenizer.json")


class FullDisk:
    """Counts the operations that may need disk space, and makes one of them fail with ENOSPC."""

    def __init__(self, fail_at: int) -> None:
        self.fail_at, self.count, self.failed = fail_at, 0, ""

    def step(self, what: str) -> None:
        self.count += 1
        if self.count == self.fail_at:
            self.failed = what
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrap(self, what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.step(what)
            return real(*args, **kwargs)

        return call

    def open(self, path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = REAL_OPEN(path, mode, *args, **kwargs)
        if mode in ("r", "rb"):
            return file
        try:
            self.step(f"open {path.name}")
        except OSError:
            file.close()
            raise
        return Writing(file, self)

    @contextmanager
    def in_place(self) -> Iterator[FullDisk]:
        disk = self

        def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
            return disk.open(path, *args, **kwargs)

        with (
            mock.patch.object(Path, "open", opened),
            mock.patch.object(Path, "mkdir", self.wrap("mkdir", Path.mkdir)),
            mock.patch.object(Path, "replace", self.wrap("replace", Path.replace)),
            mock.patch.object(os, "fsync", self.wrap("fsync", os.fsync)),
        ):
            yield self


class Writing:
    """A file whose writes are counted."""

    def __init__(self, file: Any, disk: FullDisk) -> None:
        self.file, self.disk = file, disk

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> Any:
        self.disk.step("write")
        return self.file.write(data)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FEW}


def files(seed: int) -> dict[str, bytes]:
    return {name: data for name, data in gpt2_files(seed).items() if name in FEW}


@pytest.mark.parametrize("older", [False, True])
def test_at_every_write(hub: FakeHub, home: Path, older: bool) -> None:
    failed: list[str] = []
    for fail_at in range(1, 200):
        if older:
            hub.add("openai-community/gpt2", files(1))
            pophood_hub.pull("gpt2", announce=str, force=True)
        commit = hub.add("openai-community/gpt2", files(2))
        disk = FullDisk(fail_at)
        with disk.in_place():
            try:
                pophood_hub.pull("gpt2", announce=str, revision=commit)
                error = None
            except PophoodError as caught:
                error = str(caught)
        if not disk.failed:
            break
        failed.append(disk.failed)
        here = pophood_hub.list_models()
        if error is None:  # after the model was published
            assert contents(here[0].path) == files(2)
        else:
            assert "the disk is full: needed" in error
            assert "free" in error
            whole = [contents(model.path) for model in here]
            unsynced = disk.failed == "fsync" and whole == [files(2)]  # renamed, and only the sync failed
            assert unsynced or whole == ([files(1)] if older else [])
        found = pophood_hub.pull("gpt2", announce=str, revision=commit)
        assert contents(found.path) == files(2)
        pophood_hub.remove("gpt2")
    assert not disk.failed
    assert {"write", "fsync", "replace", "mkdir", "open model.safetensors.part"} <= set(failed)
    assert len(failed) > 20


LIMITED = """
import resource, sys
from pophood import errors, hub
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
try:
    hub.pull("gpt2", announce=lambda line: None)
except errors.PophoodError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 10, 50_000, 299_999])
def test_when_the_kernel_itself_refuses_the_write(hub: FakeHub, limit: int) -> None:
    needs.linux()
    hub.add("openai-community/gpt2", files(0))
    done = processes.run(
        [sys.executable, "-c", LIMITED, str(limit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "the disk is full: needed" in done.stdout
    assert pophood_hub.list_models() == []
    assert contents(pophood_hub.pull("gpt2", announce=str).path) == files(0)
