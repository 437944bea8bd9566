"""The C++ part for Windows: compiled with mingw-w64, run under Wine."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.native.cmake import build, cross, release, run
from tests.needs import linux, tool

pytestmark = pytest.mark.timeout(3_600)  # a whole compilation
# A move of 32 or 64 bytes that faults on an address which is not a multiple of that.
ALIGNED_MOVE = re.compile(
    r"\bvmov(?:ap[sd]|dqa(?:32|64)?)\s[^#]*%[yz]mm[^#]*\(|\bvmov(?:ap[sd]|dqa(?:32|64)?)\s[^#]*\([^#]*%[yz]mm"
)


def mingw(name: str) -> str:
    """Return the path of one of mingw-w64's tools, or skip."""
    return tool(f"x86_64-w64-mingw32-{name}", package="g++-mingw-w64-x86-64-posix")


def windows_build() -> Path:
    """Build native_tests.exe, with optimisation, and return its folder."""
    return build("mingw", *cross(mingw("g++-posix"), "Windows", "AMD64"))


@pytest.mark.full
def test_the_tests_pass_under_wine(tmp_path: Path) -> None:
    """Every kernel that this processor can run is compared with the scalar ones, as on Linux."""
    linux()
    wine = Path(shutil.which("wine64") or tool("/usr/lib/wine/wine64", package="wine64"))
    settings = {
        "WINEPREFIX": str(tmp_path / "prefix"),
        "HOME": str(tmp_path),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "winemenubuilder.exe=d;mscoree=d;mshtml=d",  # no menus, no offers to install
        "DISPLAY": "",
        "WAYLAND_DISPLAY": "",
    }
    folder = windows_build()
    program = str(folder / "native_tests.exe")
    output = run([str(wine), program], environment=settings)  # and ends Wine's server
    assert re.search(r"^\d+ passed, 0 failed\s*$", output, re.MULTILINE), output[-2000:]
    here = run([str(release() / "native_tests"), "--quick"])
    # Windows does not offer the tiles of AMX: their kernels ask Linux for them.
    assert kernels(output) == kernels(here).removesuffix(" amx")


def kernels(output: str) -> str:
    """Return the instruction sets that native_tests has found."""
    found = re.search(r"^kernels: (.+?)\s*$", output, re.MULTILINE)
    assert found is not None, output
    return found[1]


@pytest.mark.full
@pytest.mark.parametrize("kernel", ["avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"])
def test_no_kernel_expects_an_aligned_stack(kernel: str) -> None:
    """GCC for Windows aligns the stack to 16 bytes and spills registers of 32 and 64 (GCC bug 54412)."""
    folder = windows_build() / "CMakeFiles/pophood_core.dir/native/kernels"
    listing = run(
        [mingw("objdump"), "--disassemble", "--no-show-raw-insn", str(folder / f"{kernel}.cpp.obj")]
    )
    assert "ymm" in listing
    assert ALIGNED_MOVE.findall(listing) == []


def test_an_aligned_move_is_recognised() -> None:
    assert ALIGNED_MOVE.search("  4f:\tvmovaps %ymm6,0x20(%rsp)")
    assert ALIGNED_MOVE.search("  4f:\tvmovdqa64 0x40(%rsp),%zmm1")
    assert not ALIGNED_MOVE.search("  4f:\tvmovups %ymm6,0x20(%rsp)")
    assert not ALIGNED_MOVE.search("  4f:\tvmovaps %ymm6,%ymm7")
    assert not ALIGNED_MOVE.search("  4f:\tvmovaps %xmm6,0x20(%rsp)")
