"""`--no-amx` of the benchmarks: a program and its children are refused AMX's tiles, and nothing else."""

from __future__ import annotations

import platform
import sys

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.needs import linux

ASKING = """
import ctypes, sys
library = ctypes.CDLL(None, use_errno=True)
permitted = ctypes.c_uint64()
print(library.syscall(158, 0x1022, ctypes.byref(permitted)), permitted.value >> 18 & 1)  # ARCH_GET_XCOMP_PERM
print(library.syscall(158, 0x1023, 18), ctypes.get_errno())  # ARCH_REQ_XCOMP_PERM
sys.path.insert(0, sys.argv[1])
from _machine import description
print(description()["amx_refused"], [name for name in description()["extensions"] if name.startswith("amx")])
from pophood import _native
print("amx" in _native.available_isa())
"""
STARTING = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[2], sys.argv[1]], check=True)"
)


@pytest.mark.parametrize("program", [[ASKING], [STARTING, ASKING]], ids=["itself", "its child"])
def test_tiles_are_refused_to_a_program_and_its_children(program: list[str]) -> None:
    linux()
    if platform.machine() != "x86_64":
        pytest.skip("this processor has no AMX: its system calls are others")
    folder = str(ROOT / "benchmarks")
    code, *more = program
    command = [sys.executable, f"{folder}/_amx.py", sys.executable, "-c", code, folder, *more]
    done = processes.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["0 0", "-1 95", "True []", "False"]
