"""The processor's name, how long the processors have worked, and the memory that this process took."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from pophood.system.machine import ROOT


def processor_name(root: Path = ROOT) -> str:
    """Return the processor's name as its maker writes it."""
    if sys.platform == "linux":
        for line in cpu_info(root):
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_info(root: Path = ROOT) -> list[str]:
    """Return the lines in which Linux describes the processors; none on other systems."""
    try:
        return (root / "proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def busy_seconds(root: Path = ROOT) -> float | None:
    """Return the seconds that all processors together have worked for all programs since the start.

    On Linux they include the time that the host of a virtual machine gave to others. None if the system does
    not say. `others_seconds` subtracts this process.
    """
    if sys.platform == "win32":
        return _windows_busy()
    if sys.platform == "darwin":
        return _macos_busy()
    try:
        words = (root / "proc/stat").read_text("ascii", "replace").splitlines()[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = map(int, words[1:9])
    except (OSError, ValueError, IndexError):
        return None
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def others_seconds() -> float | None:
    """Return the processor seconds of all other programs since the start; differences of it are of use.

    A child of this process counts as another program until it has ended. None if the system does not say.
    """
    busy, own = busy_seconds(), os.times()
    if busy is None:
        return None
    return busy - (own.user + own.system + own.children_user + own.children_system)


def peak_memory(root: Path = ROOT) -> int:
    """Return the most resident memory that this process has had, in bytes, mapped files included.

    Linux's getrusage would count the memory of the parent, of which a new process is a copy for a moment.
    """
    if sys.platform == "win32":
        return _windows_peak()
    try:
        for line in (root / "proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _macos_busy() -> float:
    import ctypes

    libc = ctypes.CDLL(None)
    ticks = (ctypes.c_uint32 * 4)()  # host_cpu_load_info: user, system, idle, nice
    size = ctypes.c_uint32(4)
    libc.host_statistics(libc.mach_host_self(), 3, ticks, ctypes.byref(size))  # 3 = HOST_CPU_LOAD_INFO
    return (ticks[0] + ticks[1] + ticks[3]) / os.sysconf("SC_CLK_TCK")


def _windows_busy() -> float | None:
    import ctypes

    idle, kernel, user = (ctypes.c_uint64() for _ in range(3))  # FILETIMEs, 100 ns; kernel includes idle
    if not ctypes.CDLL("kernel32").GetSystemTimes(*map(ctypes.byref, (idle, kernel, user))):
        return None
    return (kernel.value + user.value - idle.value) / 1e7


def _windows_peak() -> int:
    import ctypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS: the peak is the first of the sizes
        _fields_ = [("size", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("sizes", ctypes.c_size_t * 8)]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.CDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    process = ctypes.c_void_p(kernel.GetCurrentProcess())
    kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
    return int(counters.sizes[0])
