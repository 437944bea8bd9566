"""A disk that is full at any moment while a kit is made: nothing half made looks ready, and it goes on."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pophood.errors import PophoodError
from pophood.hub.store import PROVENANCE
from pophood.kit import KitPlan, copying, kit_fault, make_kit
from pophood.kit.manifest import KIT, MAKING, SUMS
from pophood.system import sync_file
from tests.kit.conftest import Listener
from tests.kit.wheels import QuickPip

WITH_A_TIME = {PROVENANCE, KIT, SUMS}  # the note of a model says when it was copied


class FullDisk:
    """Counts what takes space below a folder, and refuses one of those operations, by its number."""

    def __init__(self, folder: Path, at: int) -> None:
        self.count = 0
        self._folder, self._at = f"{folder}", at

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Let the operations of this process go through the count."""
        with pytest.MonkeyPatch.context() as patch:
            for module, name in ((os, "mkdir"), (os, "replace"), (os, "rename")):
                patch.setattr(module, name, self._counted(getattr(module, name)))
            opened = self._opened(io.open)
            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            patch.setattr(copying, "sync_file", self._synced(sync_file))
            yield

    def _take(self, path: object) -> None:
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder):
            self.count += 1
            if self.count == self._at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, *words: Any, **named: Any) -> Any:
            self._take(path)
            return real(path, *words, **named)

        return operation

    def _opened(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(path: Any, mode: str = "r", *words: Any, **named: Any) -> Any:
            if set(mode) & set("wxa+"):
                self._take(path)
            return real(path, mode, *words, **named)

        return operation

    def _synced(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(file: Any) -> Any:
            self._take(file.name)
            return real(file)

        return operation


def whole_files(kit: Path) -> dict[str, bytes]:
    """Return the content of the files at their places, without those that name a time."""
    paths = [path for path in kit.rglob("*") if path.is_file() and MAKING not in path.parts]
    return {f"{path.relative_to(kit)}": path.read_bytes() for path in paths if path.name not in WITH_A_TIME}


def test_whatever_does_not_fit_any_more_leaves_whole_files_or_none(
    plan: KitPlan, tmp_path: Path, listener: Listener, quick_pip: QuickPip
) -> None:
    make_kit(plan, tmp_path / "whole", listener.dialogue)
    wanted, number, refusals = whole_files(tmp_path / "whole"), 0, 0
    while True:
        number += 1
        out = tmp_path / f"kit{number}"
        disk = FullDisk(out, number)
        with disk.mounted():
            try:
                make_kit(plan, out, listener.dialogue)
            except PophoodError as refused:
                assert "the disk is full" in str(refused)
                refusals += 1
                assert kit_fault(out, listener.dialogue) is not None
            else:  # it has no need of what was refused, or nothing was
                assert kit_fault(out, listener.dialogue) is None
        if disk.count < number:
            break
        assert not list(out.glob("[!.]*/**/.*")), "nothing hidden is left beside the files"
        assert (whole_files(out) if out.is_dir() else {}).items() <= wanted.items()
        if number % 10 == 0:
            make_kit(plan, out, listener.dialogue)
            assert kit_fault(out, listener.dialogue) is None
    assert disk.count > 60 and refusals > 50
