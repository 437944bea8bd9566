"""Programs that are refused AMX's tiles, as by `--no-amx` of the benchmarks: they compute without, alike."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pophood.model.machine import instruction_sets
from tests import processes
from tests.conftest import ROOT
from tests.needs import linux
from tests.tiny import tiny_gguf

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


COMPUTING = """
import hashlib, sys
import pophood
for path in sys.argv[1:]:
    engine = pophood.load(path).engine
    output = engine.forward([(engine.new_sequence(), list(range(3, 78)))], rows="all").output
    print(engine.isa, hashlib.sha256(output.tobytes()).hexdigest())
"""


def test_an_engine_that_is_refused_tiles_computes_without_them(tmp_path: Path) -> None:
    """75 tokens would take tiles, and so would any number of them beside BF16."""
    linux()
    if "amx" not in instruction_sets():
        pytest.skip("this processor has no amx, or the system grants no tiles: there is nothing to refuse")
    blocks = str(tiny_gguf(tmp_path / "blocks.gguf", "llama", quantised="Q8_0"))
    bfloat16 = str(tiny_gguf(tmp_path / "bfloat16.gguf", "qwen2", dtype="BF16"))
    refused = [sys.executable, str(ROOT / "benchmarks" / "_amx.py")]

    def compute(*before: str, isa: str = "") -> subprocess.CompletedProcess[str]:
        command = [*before, sys.executable, "-c", COMPUTING, blocks, bfloat16]
        return processes.run(command, env=os.environ | {"POPHOOD_ISA": isa}, capture_output=True, text=True)

    without, chosen, tiles = compute(*refused), compute(isa="avx512bf16"), compute()
    assert without.returncode == chosen.returncode == tiles.returncode == 0, without.stderr[-3000:]
    assert without.stdout == chosen.stdout
    assert tiles.stdout.splitlines()[0] == without.stdout.splitlines()[0].replace("avx512bf16", "amx")
    forced = compute(*refused, isa="amx")
    assert forced.returncode == 1
    assert "BadInput: POPHOOD_ISA=amx cannot run here; there are: scalar, avx2," in forced.stderr
