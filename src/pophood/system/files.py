"""Files: mapping, replacing in one step, locking, and a full disk told in words."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from pophood.errors import BadFile, NotFound, OutOfMemory, PophoodError
from pophood.system.user import home


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map a whole file read-only; the caller closes it (Windows cannot replace a file that is mapped).

    Raises NotFound without a file, BadFile for a folder, a pipe or an empty file.

        map_file("model.gguf")[:4]  # b"GGUF"
    """
    try:
        mode = Path(path).stat().st_mode  # opening a pipe would wait for its writer
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BadFile(f"{path}: is a pipe, a socket or a device; wanted a file: name the file itself")
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise BadFile(f"{path}: the file is empty, wanted a model's data: fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file; check the path, or see `pophood list`") from None
    except IsADirectoryError:
        raise BadFile(f"{path}: got a folder, wanted a file") from None
    except PermissionError:
        raise BadFile(
            f"{path}: may not be read by this user (or is a folder); check its permissions"
        ) from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise OutOfMemory(f"{path}: the system has no address space left to map it") from None
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from None


def atomic_write(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that readers, and a power cut, see the old content or the new, never a mixture.

    `content` is the bytes, or a function that writes them to an open file. A link is followed, an existing
    file's mode is kept. Raises PophoodError for a full disk or (Windows) a target that is mapped.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{unique()}.tmp")
    with disk_errors(Path(path), len(content) if isinstance(content, bytes) else None):
        try:
            with temporary.open("xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                sync_file(file)
            with suppress(FileNotFoundError):
                temporary.chmod(target.stat().st_mode & 0o777)
            replace(temporary, target)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            ours = (None, str(temporary), str(target))
            if isinstance(error, OSError) and error.errno is not None and error.filename in ours:
                # The user named `path`; the hidden file beside it means nothing to anybody.
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
            raise


def unique() -> str:
    """A name part that no other process or thread has used: `"4711-9f86d081"`."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def sync_file(file: IO[bytes]) -> None:
    """Flush an open file down to the disk (on macOS to the platter, which plain fsync does not do)."""
    file.flush()
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # network file systems have no F_FULLFSYNC
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make renames inside a folder survive a power cut. Nothing to do on Windows, which has no such call."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def replace(source: Path, target: Path) -> None:
    """`rename`, and make it survive a power cut."""
    rename(source, target)
    fsync_directory(target.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file over a file, or a folder to a free name, in one step.

    Raises PophoodError on Windows while another program has the target open.
    """
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8, None):
        try:
            source.replace(target)
            break
        except PermissionError as error:
            # Windows: a virus scanner lets go within a moment, an open mapping does not.
            if sys.platform == "win32":
                if pause is None:
                    raise PophoodError(
                        f"{target}: in use by a running program, cannot be replaced: close the model first"
                    ) from error
                time.sleep(pause)
            else:
                raise


@contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full or unwritable disk into one PophoodError that names the disk, and needed and free bytes."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            wants = "more" if needed is None else f"{needed:,} bytes"
            raise PophoodError(
                f"{path}: the disk is full: needed {wants}, free {free_disk(path):,} bytes on "
                f"{disk_of(path)}: free some space there, or {_other_place(path, 'a place on another disk')}"
            ) from error
        if error.errno in (errno.ENOLCK, errno.ENOTSUP):
            raise PophoodError(
                f"{path}: this file system has no locks, so two programs could write at once: "
                f"{_other_place(path, 'a place on a disk of this machine')}"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise PophoodError(
                f"{path}: may not be written ({error.strerror}): check its permissions, or "
                f"{_other_place(path, 'a place that you may write to')}"
            ) from error
        raise


def _other_place(path: Path, place: str) -> str:
    """How to write elsewhere: POPHOOD_HOME moves pophood's own files, any other file is named anew."""
    own = home()
    absolute = Path(path).absolute()
    return f"point POPHOOD_HOME to {place}" if absolute == own or own in absolute.parents else f"name {place}"


@contextmanager
def file_lock(
    path: Path, *, waiting: Callable[[], object] | None = None, timeout: float | None = None
) -> Iterator[None]:
    """Hold a lock between processes (and threads) on a small file, which is created and left in place.

    `waiting` is called once if somebody else holds it. Raises PophoodError after `timeout` seconds.
    The system frees the lock of a process that dies.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    start = time.monotonic()
    try:
        while not _try_lock(descriptor, path):
            if waiting is not None:
                waiting()
                waiting = None
            if timeout is not None and time.monotonic() - start > timeout:
                raise PophoodError(f"{path}: still locked by another process after {timeout:g} s: try later")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # closing frees the lock on every system


def _try_lock(descriptor: int, path: Path) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        with disk_errors(path):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def disk_of(path: str | os.PathLike[str]) -> Path:
    """Where the disk that holds `path`, or would hold it, is mounted: `/`, `/home`, `D:\\`."""
    folder = Path(os.path.realpath(path))
    while not folder.is_mount() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_disk(path: str | os.PathLike[str]) -> int:
    """Bytes that this user may still write where `path` is, or would be."""
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def size_text(n: int) -> str:
    """Format a number of bytes in decimal units, as disks and hubs do: `548_105_171` -> "548.1 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= factor:
            return f"{n / factor:.1f} {unit}"
    return f"{n} bytes"
