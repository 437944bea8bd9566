"""The one place for what differs between operating systems and machines: mapping and replacing files, locks,
folders, memory, cores, consoles. No formats, no network, no policy about models.

Linux is tested. The branches for macOS and Windows are written from their manuals and not run here.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from pophood.errors import BadFile, BadInput, NotHere, OutOfMemory, PophoodError

ROOT = Path("/")  # a parameter below, so that tests can lay out a machine of their own


# Files ------------------------------------------------------------------------------------------------


def map_file(path: str | os.PathLike[str]) -> mmap.mmap:
    """Map a whole file read-only; the caller closes it (Windows cannot replace a file that is mapped).

    Raises NotHere without a file, BadFile for a folder or an empty file.

    >>> map_file("model.gguf")[:4]  # doctest: +SKIP
    b'GGUF'
    """
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise BadFile(f"{path}: the file is empty, wanted a model's data: fetch it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise NotHere(f"{path}: there is no such file; check the path, or see `pophood list`") from None
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
    with disk_errors(target, len(content) if isinstance(content, bytes) else None):
        try:
            with open(temporary, "xb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    content(file)
                sync_file(file)
            with suppress(FileNotFoundError):
                os.chmod(temporary, target.stat().st_mode & 0o777)
            replace(temporary, target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
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
    """Rename a file over a file, or a folder to a free name, in one step that survives a power cut."""
    for attempt in range(6):
        try:
            os.replace(source, target)
            break
        except PermissionError:
            # Windows: a virus scanner lets go within a moment, an open mapping does not.
            if sys.platform != "win32":
                raise
            if attempt == 5:
                raise PophoodError(
                    f"{target}: in use by a running program, so it cannot be replaced: close the model first"
                ) from None
            time.sleep(0.05 * 2**attempt)
    fsync_directory(target.parent)


@contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full or unwritable disk into one PophoodError that says needed and free bytes."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            wants = "more" if needed is None else f"{needed:,} bytes"
            raise PophoodError(
                f"{path}: the disk is full: needed {wants}, free {free_disk(path):,} bytes: "
                "free some space, or point POPHOOD_HOME to another disk"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise PophoodError(
                f"{path}: may not be written ({error.strerror}): check its permissions, or point "
                "POPHOOD_HOME to a folder of yours"
            ) from error
        raise


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
        while not _try_lock(descriptor):
            if waiting is not None:
                waiting()
                waiting = None
            if timeout is not None and time.monotonic() - start > timeout:
                raise PophoodError(f"{path}: still locked by another process after {timeout:g} s: try later")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)  # closing frees the lock on every system


def _try_lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_disk(path: str | os.PathLike[str]) -> int:
    """Bytes that this user may still write where `path` is, or would be."""
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


# Folders and switches ---------------------------------------------------------------------------------


def home() -> Path:
    """Where pophood keeps models and settings: POPHOOD_HOME, else the system's folder for user data."""
    chosen = os.environ.get("POPHOOD_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("pophood", appauthor=False)


def model_folders() -> list[Path]:
    """Where models are looked for, in order: POPHOOD_MODELS (only read), then `home()/models` (written)."""
    shared = os.environ.get("POPHOOD_MODELS", "")
    folders = [Path(part).expanduser().absolute() for part in shared.split(os.pathsep) if part.strip()]
    return [*folders, home() / "models"]


def offline() -> bool:
    """Whether POPHOOD_OFFLINE (or Hugging Face's own HF_HUB_OFFLINE) forbids every connection."""
    names = ("POPHOOD_OFFLINE", "HF_HUB_OFFLINE")
    return any(
        os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off") for name in names
    )


def unicode_ok(stream: TextIO) -> bool:
    """Whether a text stream's encoding has the bars, boxes and marks that tables use (cp1252 has not)."""
    try:
        "█▌▏│─→…·".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def colour_ok(stream: TextIO) -> bool:
    """Whether colour may be written: a terminal, that is not dumb, of a person who did not set NO_COLOR."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


# Memory -----------------------------------------------------------------------------------------------


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can be allocated now without swapping: what the system says, within any cgroup limit."""
    if sys.platform == "win32":
        return _windows_memory()
    if sys.platform == "darwin":
        return _macos_memory()
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            break
    else:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(0, min([available, *_cgroup_memory(root)]))


def _cgroup_memory(root: Path) -> Iterator[int]:
    """What each enclosing cgroup has left; file cache counts as free, since the kernel takes it back."""
    for folder in _cgroup_folders(root, "memory"):
        for limit_name, used_name, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),  # cgroup v1
        ):
            limit, used = _read(folder / limit_name).strip(), _read(folder / used_name).strip()
            if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:  # v1 writes "no limit" as 2^63
                lines = (line.split() for line in _read(folder / "memory.stat").splitlines())
                counts = {words[0]: int(words[1]) for words in lines if len(words) == 2}
                cache = sum(counts.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield int(limit) - int(used) + cache


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of all its parents (v2 and v1), as far as they are mounted."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mounts = ["unified", ""] if not controllers else [controllers, controller]
        for mount in dict.fromkeys(mounts):
            base = root / "sys/fs/cgroup" / mount
            folder = base / path.lstrip("/")
            yield from (part for part in [folder, *folder.parents] if part == base or base in part.parents)


def _macos_memory() -> int:
    libc = ctypes.CDLL(None)
    counts = (ctypes.c_uint32 * 64)()  # vm_statistics64: free, active, inactive, wired, ...
    size = ctypes.c_uint32(64)
    libc.host_statistics64(libc.mach_host_self(), 4, counts, ctypes.byref(size))  # 4 = HOST_VM_INFO64
    return (counts[0] + counts[2]) * mmap.PAGESIZE


def _windows_memory() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in (
                "total",
                "free",
                "total_page",
                "free_page",
                "total_virtual",
                "free_virtual",
                "extended",
            )
        ]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return int(min(status.free, status.free_page))


# Cores ------------------------------------------------------------------------------------------------


def default_threads(root: Path = ROOT) -> int:
    """Threads to compute with: POPHOOD_THREADS, else the fewest of fast physical cores, affinity and quota."""
    chosen = os.environ.get("POPHOOD_THREADS", "").strip()
    if chosen:
        if not chosen.isdecimal() or not 1 <= int(chosen) <= 1024:
            raise BadInput(f"POPHOOD_THREADS is {chosen!r}, wanted a whole number from 1 to 1024")
        return int(chosen)
    return max(1, min([physical_cores(root), *_cgroup_cpus(root)]))


def physical_cores(root: Path = ROOT) -> int:
    """Physical performance cores that this process may use (two hyper-threads of one core count once)."""
    logical = os.cpu_count() or 1
    if sys.platform == "win32":
        return _windows_cores() or logical
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or logical
    allowed = os.sched_getaffinity(0)
    base = root / "sys/devices"
    fast = _cpu_list(_read(base / "cpu_core/cpus"))  # Intel hybrids list their fast cores here
    capacity = {cpu: _read(base / f"system/cpu/cpu{cpu}/cpu_capacity").strip() for cpu in allowed}
    if all(value.isdigit() for value in capacity.values()):  # Arm: 1024 for the fastest kind
        most = max(int(value) for value in capacity.values())
        fast = fast or {cpu for cpu, value in capacity.items() if int(value) * 2 > most}
    cores = set()
    for cpu in (allowed & fast) or allowed:
        siblings = _cpu_list(_read(base / f"system/cpu/cpu{cpu}/topology/thread_siblings_list"))
        cores.add(min(siblings, default=cpu))
    return len(cores)


def _cgroup_cpus(root: Path) -> Iterator[int]:
    """Whole CPUs per enclosing cgroup; a fraction is dropped, for a throttled thread stalls all others."""
    for folder in _cgroup_folders(root, "cpu"):
        v2 = _read(folder / "cpu.max").split()
        v1 = [_read(folder / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")]
        for words in (v2, v1):
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
                yield max(1, int(words[0]) // int(words[1]))


def _cpu_list(text: str) -> set[int]:
    """The kernel's lists: `"0-3,8"` -> {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _sysctl(name: str) -> int:
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    status = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return value.value if status == 0 else 0


def _windows_cores() -> int:
    """Cores of the highest efficiency class in SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX records."""
    kernel, size = ctypes.CDLL("kernel32"), ctypes.c_uint32(0)
    kernel.GetLogicalProcessorInformationEx(0, None, ctypes.byref(size))  # 0 = RelationProcessorCore
    buffer = ctypes.create_string_buffer(size.value)
    if not kernel.GetLogicalProcessorInformationEx(0, buffer, ctypes.byref(size)):
        return 0
    classes: list[int] = []
    at = 0
    while at + 10 <= size.value:  # u32 relation, u32 record size, u8 flags, u8 efficiency class, ...
        classes.append(buffer.raw[at + 9])
        at += max(8, int.from_bytes(buffer.raw[at + 4 : at + 8], "little"))
    return classes.count(max(classes, default=0))


def _read(path: Path) -> str:
    """The text of a small system file; empty when it is missing, which every caller takes as "unknown"."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
