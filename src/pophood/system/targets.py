"""Checks, before any work is done, whether a file or folder can be written where the user wants it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from pophood.errors import BadInput, PophoodError
from pophood.system.files import disk_errors, unique


def check_writable_target(path: str | os.PathLike[str], *, folder: bool = False) -> None:
    """Raise unless a file (or with `folder` a folder, including its parents) can be written at `path` now.

    The containing folder is probed with an empty file, which is removed at once, because permission bits do
    not account for read-only disks, access lists or Windows. Raises BadInput if the path is unsuitable (its
    folder is missing or is a file; a folder or a device is there) and PophoodError if the system forbids
    writing; both name the path as the user gave it.
    """
    shown = os.fspath(path)
    if not shown or "\0" in shown:
        raise BadInput(
            f"{shown!r} is not a name for a {'folder' if folder else 'file'}: give one, as in ./out"
        )
    try:
        holder = _folder_target(Path(path), shown) if folder else _file_target(Path(path), shown)
    except OSError as error:  # a name that is too long, a loop of links, a folder that may not be entered
        raise _refused(shown, error) from None
    _probe(holder, shown)


def _file_target(path: Path, shown: str) -> Path:
    """Return the existing folder that would hold the file; links are followed, as in `atomic_write`."""
    if shown.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        raise BadInput(f"{shown}: names a folder; wanted a file: add a file name")
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise BadInput(f"{shown}: is a folder; wanted a file: name a file in it, or another place")
    if mode is not None and not stat.S_ISREG(mode):
        raise BadInput(f"{shown}: is a device or a pipe; wanted a regular file: name one")
    target = Path(os.path.realpath(path))
    holder = target.parent
    if _mode(holder) is None and _blocking_file(holder) is None:
        raise BadInput(f"{shown}: the folder {_named(path, holder)} does not exist: make it, or name another")
    _refuse_blocked(path, shown, holder)
    if len(os.fsencode(target.name)) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return holder


def _folder_target(path: Path, shown: str) -> Path:
    """Return the nearest existing folder: the target itself, or the parent in which it would be created."""
    target = Path(os.path.realpath(path))
    _refuse_blocked(path, shown, target)
    return next(place for place in (target, *target.parents) if _mode(place) is not None)


def _refuse_blocked(path: Path, shown: str, holder: Path) -> None:
    """Raise BadInput if a file is in the place of the folder `holder` or one of its parents."""
    blocking = _blocking_file(holder)
    if blocking is not None and os.path.realpath(path) == str(blocking):
        raise BadInput(f"{shown}: is a file; wanted a folder: name another place")
    if blocking is not None:
        raise BadInput(f"{shown}: {_named(path, blocking)} is a file, not a folder: name another place")


def _blocking_file(holder: Path) -> Path | None:
    for place in (holder, *holder.parents):
        mode = _mode(place)
        if mode is not None:
            return None if stat.S_ISDIR(mode) else place
    return None


def _mode(path: Path) -> int | None:
    """Return the mode of a file or folder, or None if the path does not exist; other errors are passed on."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _named(path: Path, place: Path) -> Path:
    """Name a resolved parent of `path` as the user wrote it, if possible."""
    for parent in path.parents:
        if os.path.realpath(parent) == str(place) and str(parent) != ".":
            return parent
    return place


def _probe(holder: Path, shown: str) -> None:
    """Create and remove an empty file in a folder."""
    probe = holder / f".pophood-{unique()}.tmp"
    try:
        with disk_errors(Path(shown)):
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise _refused(shown, error) from None
    finally:
        with suppress(OSError):
            probe.unlink()


def _refused(shown: str, error: OSError) -> PophoodError:
    return PophoodError(f"{shown}: cannot be written ({error.strerror or error}): name another place")
