"""`--no-amx`: measure as on a processor without AMX, on all sides alike.

Linux gives a program the tile registers only when it asks for them (arch_prctl with ARCH_REQ_XCOMP_PERM, in
the kernel's Documentation/arch/x86/xstate.rst). A filter of system calls (seccomp) answers what a kernel
without AMX answers, EOPNOTSUPP, to this program and to all that it starts, and every engine then takes its
best kernels for AVX-512. The engines' own variables reach parts of them only: docs/peers.md says which.
A program that used a tile without permission would end with SIGILL, so none can do it unseen.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence

REFUSED = "POPHOOD_BENCHMARK_NO_AMX"  # set in programs that run under the filter
ARCH_PRCTL, REQUEST, TILES = 158, 0x1023, 18  # the system call on x86-64, ARCH_REQ_XCOMP_PERM, its argument
AUDIT_ARCH_X86_64 = 0xC000003E
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16  # bytes into struct seccomp_data
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000
EOPNOTSUPP = 95
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2  # prctl
STEPS = (  # code, how many to skip if equal, how many if not, value
    (LOAD, 0, 0, ARCHITECTURE),
    (JUMP_IF_EQUAL, 0, 5, AUDIT_ARCH_X86_64),
    (LOAD, 0, 0, NUMBER),
    (JUMP_IF_EQUAL, 0, 3, ARCH_PRCTL),
    (LOAD, 0, 0, ARGUMENT),
    (JUMP_IF_EQUAL, 0, 1, REQUEST),
    (RETURN, 0, 0, FAIL | EOPNOTSUPP),
    (RETURN, 0, 0, ALLOW),
)


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


class _NoAmx(argparse.Action):
    """Starts the benchmark once more, under the filter."""

    def __call__(self, *_: object) -> None:
        if not amx_refused():
            refuse_amx()
            # A permission that was given before ends with the old program.
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def add_no_amx(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option."""
    parser.add_argument("--no-amx", action=_NoAmx, nargs=0, help="measure as on a processor without AMX")


def amx_refused() -> bool:
    """Return True if this program and its sides run without AMX."""
    return REFUSED in os.environ


def refuse_amx() -> None:
    """Refuse the tiles to this program and all that it starts, until they end (Linux on x86-64)."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        sys.exit("--no-amx works on Linux on x86-64, where a program has to ask for the tiles: leave it out")
    packed = b"".join(struct.pack("HBBI", *step) for step in STEPS)
    steps = ctypes.create_string_buffer(packed, len(packed))
    program = _Program(len(STEPS), ctypes.addressof(steps))
    library = ctypes.CDLL(None, use_errno=True)
    for call in ((NO_NEW_PRIVILEGES, 1, 0, 0, 0), (SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0)):
        if library.prctl(*call):
            sys.exit(f"the kernel refuses a filter of system calls: {os.strerror(ctypes.get_errno())}")
    if tiles_allowed():
        sys.exit("the filter of system calls has no effect: this program was still given the tiles")
    os.environ[REFUSED] = "1"


def tiles_allowed() -> bool:
    """Ask for the tiles, as every engine does."""
    library = ctypes.CDLL(None, use_errno=True)
    return not library.syscall(ARCH_PRCTL, REQUEST, TILES)


def without_amx(extensions: Sequence[str]) -> list[str]:
    """The extensions of the processor that the sides can use."""
    return [name for name in extensions if not (amx_refused() and name.startswith("amx"))]


if __name__ == "__main__":  # any program: python benchmarks/_amx.py PROGRAM ARGUMENT...
    refuse_amx()
    os.execvp(sys.argv[1], sys.argv[1:])
