"""Free memory and physical cores, within the limits of this process (affinity and cgroups)."""

from __future__ import annotations

import math
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pophood.errors import BadInput

ROOT = Path("/")  # a parameter below, so that tests can describe a machine of their own


# Memory -----------------------------------------------------------------------------------------------


def memory_text(size: float) -> str:
    """Format a number of bytes in binary units, as memory is counted.

    >>> memory_text(3 * 2**30), memory_text(5 * 2**20)
    ('3.00 GiB', '5 MiB')
    """
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{math.ceil(size / 2**20)} MiB"


def available_memory(root: Path = ROOT) -> int:
    """Return the bytes that can be allocated now without swapping, within any cgroup limit."""
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
    """Yield the memory left in each enclosing cgroup.

    File cache counts as free, since the kernel reclaims it.
    """
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
    """Yield the folders of this process's cgroup and of all its parents (v2 and v1) that are mounted."""
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
    import ctypes

    libc = ctypes.CDLL(None)
    counts = (ctypes.c_uint32 * 64)()  # vm_statistics64: free, active, inactive, wired, ...
    size = ctypes.c_uint32(64)
    libc.host_statistics64(libc.mach_host_self(), 4, counts, ctypes.byref(size))  # 4 = HOST_VM_INFO64
    return (counts[0] + counts[2]) * mmap.PAGESIZE


def _windows_memory() -> int:
    import ctypes

    class Status(ctypes.Structure):
        # The sizes: total, free, total_page, free_page, total_virtual, free_virtual, extended_virtual.
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), ("sizes", ctypes.c_uint64 * 7)]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(status))
    return int(min(status.sizes[1], status.sizes[3]))


# Cores ------------------------------------------------------------------------------------------------


def default_threads(root: Path = ROOT) -> int:
    """Return the number of threads: POPHOOD_THREADS, else the least of fast cores, affinity and CPU quota."""
    chosen = os.environ.get("POPHOOD_THREADS", "").strip()
    if chosen:
        if not (chosen.isascii() and chosen.isdecimal()) or not 1 <= int(chosen) <= 1024:
            raise BadInput(f"POPHOOD_THREADS is {chosen!r}, wanted a whole number from 1 to 1024")
        return int(chosen)
    return max(1, min([physical_cores(root), *_cgroup_cpus(root)]))


def physical_cores(root: Path = ROOT) -> int:
    """Count the physical performance cores that this process may use; hyper-threads of a core count once."""
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
    """Yield the whole CPUs of each enclosing cgroup, rounded down: a throttled thread stalls all others."""
    for folder in _cgroup_folders(root, "cpu"):
        v2 = _read(folder / "cpu.max").split()
        v1 = [_read(folder / f"cpu.cfs_{part}_us").strip() for part in ("quota", "period")]
        for words in (v2, v1):
            if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
                yield max(1, int(words[0]) // int(words[1]))


def _cpu_list(text: str) -> set[int]:
    """Parse one of the kernel's lists: `"0-3,8"` -> {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _sysctl(name: str) -> int:
    import ctypes

    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    status = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return value.value if status == 0 else 0


def _windows_cores() -> int:
    """Count cores of the highest efficiency class in SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX records."""
    import ctypes

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
    """Read a small system file; "" if it is missing, which every caller treats as unknown."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
