"""Long-running programs of pophood that others of the same user can see: each holds a lock on a small file.

The system releases the lock of a process that dies, so that a file that was left behind means nothing. A
process that serves another one ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pophood.errors import PophoodError
from pophood.system.files import try_lock, unique
from pophood.system.user import home

_SET_DEATH_SIGNAL = 1  # of prctl(2)
OLD = 60.0  # seconds after which a file without a lock is nobody's


@contextmanager
def announced(program: str) -> Iterator[None]:
    """Let other programs see, during the block, that a program runs: `with announced("tune"): ...`.

    Without a home that can be written to, nobody sees it, and nothing else changes.
    """
    descriptor, path = None, _folder() / f"{program}-{unique()}.lock"
    with contextlib.suppress(OSError, PophoodError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(program)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try_lock(descriptor, path)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()


def is_running(program: str) -> bool:
    """Return whether a program that `announced` itself runs at present, in this process or another."""
    return any(_is_locked(path) for path in _files(program))


def end_with_parent() -> None:
    """Let the system kill this process when the thread that started it ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _folder() -> Path:
    return home() / "running"


def _files(program: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(_folder().glob(f"{program}-*.lock"))
    return []


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # it has just ended, or is another user's
        return False
    try:
        return not try_lock(descriptor, path)
    except (OSError, PophoodError):  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def _remove_old(program: str) -> None:
    """Delete files of programs that were killed; one that has just begun may not have its lock yet."""
    for path in _files(program):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > OLD and not _is_locked(path):
                path.unlink()
