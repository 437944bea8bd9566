"""Files: mapping, atomic replacement, locking, and readable errors for full disks."""

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
from pophood.phrases import later, phrase
from pophood.system.user import home, nearest_folder

LOCKED_BYTE = 2**31 - 2  # on Windows, where what is locked cannot be written: behind what a file holds


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map a whole file read-only; the caller must close it (Windows cannot replace a mapped file).

    Raises NotFound without the file, BadFile for a folder, a pipe or an empty file.

        map_file("model.gguf")[:4]  # b"GGUF"
    """
    try:
        mode = Path(path).stat().st_mode  # opening a pipe would wait for its writer
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            words = later("{path}: is a pipe, a socket or a device; wanted a regular file: name one")
            raise BadFile(phrase(words, path=path))
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise BadFile(f"{path}: the file is empty: fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file; check the path, or see `pophood list`") from None
    except IsADirectoryError:
        raise BadFile(phrase("{path}: got a folder, wanted a file", path=path)) from None
    except PermissionError:
        words = later("{path}: cannot be read by this user (or is a folder): check its permissions")
        raise BadFile(phrase(words, path=path)) from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise OutOfMemory(f"{path}: not enough address space is left to map it") from None
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from None


def drop_pages(mapping: mmap.mmap) -> None:
    """Take a mapped file out of this process's memory; reading a part of it again brings that part back.

    Does nothing on Windows, which has no such call.
    """
    if sys.platform != "win32":
        mapping.madvise(mmap.MADV_DONTNEED)


def atomic_write(path: str | os.PathLike[str], content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: readers, and a power cut, see the old content or the new, never a mixture.

    `content` is the bytes, or a function that writes them to an open file. Links are followed, and the mode
    of an existing file is kept. Raises PophoodError for a full disk or (on Windows) a target that is mapped.
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
                # Name `path`, as the user did, and not the hidden file beside it.
                raise OSError(error.errno, error.strerror, os.fspath(path)) from error
            raise


def unique() -> str:
    """Return a part of a file name that no other process or thread uses: `"4711-9f86d081"`."""
    return f"{os.getpid()}-{os.urandom(4).hex()}"


def sync_file(file: IO[bytes]) -> None:
    """Flush an open file to the disk (on macOS with F_FULLFSYNC: plain fsync stops at the drive's cache)."""
    file.flush()
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # network file systems have no F_FULLFSYNC
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make renames inside a folder survive a power cut; does nothing on Windows, which has no such call."""
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
    """Rename a file as `rename` does, and make that survive a power cut."""
    rename(source, target)
    fsync_directory(target.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file (replacing an existing one), or a folder to an unused name, in one step.

    Raises PophoodError on Windows while another program has the target open.
    """
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8, None):
        try:
            source.replace(target)
            break
        except PermissionError as error:
            # On Windows a virus scanner releases the file within a moment; an open mapping does not.
            if sys.platform == "win32":
                if pause is None:
                    raise PophoodError(
                        f"{target}: in use by a running program, cannot be replaced: close that program first"
                    ) from error
                time.sleep(pause)
            else:
                raise


@contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn errors of a full or unwritable disk into a PophoodError that names the disk and the free bytes."""
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
                f"{path}: cannot be written ({error.strerror}): check its permissions, or "
                f"{_other_place(path, 'a place that you can write to')}"
            ) from error
        raise


def _other_place(path: Path, place: str) -> str:
    """Say how to write elsewhere: set POPHOOD_HOME for pophood's own files, name another path for others."""
    own = home()
    absolute = Path(path).absolute()
    return f"point POPHOOD_HOME to {place}" if absolute == own or own in absolute.parents else f"name {place}"


@contextmanager
def file_lock(
    path: Path, *, waiting: Callable[[], object] | None = None, timeout: float | None = None
) -> Iterator[None]:
    """Hold a lock between processes (and threads) by a small file, which is created and not deleted.

    `waiting` is called once if the lock is held elsewhere. Raises PophoodError after `timeout` seconds. The
    system releases the lock of a process that dies.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    start = time.monotonic()
    try:
        while not try_lock(descriptor, path):
            if waiting is not None:
                waiting()
                waiting = None
            if timeout is not None and time.monotonic() - start > timeout:
                raise PophoodError(f"{path}: still locked by another process after {timeout:g} s: try later")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # closing releases the lock on every system


def try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file if nobody else has, and return whether that succeeded; closing it unlocks it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
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
    """Return the mount point of the disk that holds `path`, or would hold it: `/`, `/home`, `D:\\`."""
    folder = Path(os.path.realpath(path))
    return next((place for place in (folder, *folder.parents) if place.is_mount()), Path(folder.anchor))


def free_disk(path: str | os.PathLike[str]) -> int:
    """Return the bytes that this user can still write to the disk of `path`."""
    try:
        return shutil.disk_usage(nearest_folder(Path(path).absolute())).free
    except OSError:
        return 0


def size_text(n: int) -> str:
    """Format a number of bytes in decimal units, as disks and hubs do: `548_105_171` -> "548.1 MB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= factor:
            return f"{n / factor:.1f} {unit}"
    return f"{n} bytes"
