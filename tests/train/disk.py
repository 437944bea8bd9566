"""Hooks that run before every disk operation, and may let it fail or kill the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

REAL_OPEN = Path.open


@dataclass(frozen=True)
class Operation:
    """`kind` is create, write, truncate, fsync, mkdir, rename, unlink or rmdir."""

    kind: str
    path: Path
    data: bytes = b""  # of a write
    to: Path | None = None  # of a rename
    file: Any = None  # of a write: the open file, unbuffered
    size: int = 0  # of a truncate


class _Writing:
    """An unbuffered file that reports each write before it happens."""

    def __init__(self, path: Path, mode: str, tell: Callable[[Operation], None]) -> None:
        if mode[0] != "a" or not path.exists():
            tell(Operation("create", path))
        self.path, self.tell, self.file = path, tell, REAL_OPEN(path, mode, buffering=0)

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def truncate(self, size: int) -> int:
        self.tell(Operation("truncate", self.path, size=size))
        return self.file.truncate(size)

    def write(self, data: bytes | memoryview) -> int:
        self.tell(Operation("write", self.path, bytes(data), file=self.file))
        return self.file.write(data) or 0


def _path(name: Any, folder: int | None = None) -> Path:
    """Return the path of a name, of an open file descriptor, or of a name relative to one."""
    if isinstance(name, int):
        return Path(f"/proc/self/fd/{name}").readlink()
    return Path(name) if folder is None else Path(f"/proc/self/fd/{folder}").readlink() / name


@contextmanager
def watched(tell: Callable[[Operation], None]) -> Iterator[None]:
    """Call `tell` before every operation; an exception from it becomes the operation's error."""

    def opened(path: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        return REAL_OPEN(path, mode, *rest, **named) if mode[0] == "r" else _Writing(path, mode, tell)

    def wrapped(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(name: Any, *rest: Any, dir_fd: int | None = None, **named: Any) -> Any:
            path = _path(name, dir_fd)
            if kind != "mkdir" or not path.exists():
                tell(Operation(kind, path, to=Path(rest[0]) if kind == "rename" else None))
            return real(name, *rest, **({} if dir_fd is None else {"dir_fd": dir_fd}), **named)

        return call

    real_open = os.open

    def opened_low(name: Any, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_CREAT and not Path(name).exists():
            tell(Operation("create", Path(name)))
        return real_open(name, flags, *rest, **named)

    names = {"fsync": "fsync", "mkdir": "mkdir", "replace": "rename", "unlink": "unlink", "rmdir": "rmdir"}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Path, "open", opened))
        stack.enter_context(mock.patch.object(os, "open", opened_low))
        for name, kind in names.items():
            stack.enter_context(mock.patch.object(os, name, wrapped(kind, getattr(os, name))))
        yield
