"""Builds native/ without Python: with sanitizers, with other compilers, and for other processors.

Each build has its own folder below build/native/, which later runs reuse.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pophood.system import file_lock
from tests import processes
from tests.conftest import ROOT
from tests.needs import linux, tool

KERNEL_FLAGS = {"avx2": "-mavx2", "avx512": "-mavx512f", "avx512vnni": "-mavx512vnni"}
pytestmark = pytest.mark.timeout(3_600)  # several compilers, one after the other
# Sanitizers and emulation are two to twenty times slower: only the full run tries every size there.
EXTENTS = pytest.mark.parametrize("extent", [("--quick",), pytest.param((), marks=pytest.mark.full)])
FORBIDDEN_FLAGS = ("-ffast-math", "-Ofast", "-march=native", "-mtune=native", "-flto")


def configure(name: str, *options: str) -> Path:
    """Configure a build without Python, in which warnings are errors; return its folder."""
    folder = ROOT / "build" / "native" / name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    cmake = shutil.which("cmake", path=path)
    assert cmake is not None, "cmake is installed by make"
    common = ["-G", "Ninja", "-DPOPHOOD_PYTHON=OFF", "-DPOPHOOD_WERROR=ON", *options]
    with build_lock(folder):
        run([cmake, "-S", str(ROOT), "-B", str(folder), *common], path=path)
    return folder


def build(name: str, *options: str, target: str = "native_tests") -> Path:
    """Configure and build a target; return the folder."""
    folder = configure(name, *options)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with build_lock(folder):
        run([str(shutil.which("cmake", path=path)), "--build", str(folder), "--target", target], path=path)
    return folder


def build_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock a build folder, because two builds at the same time would damage ninja's records."""
    return file_lock(folder.with_name(f"{folder.name}.lock"), timeout=processes.HANG_SECONDS)


def run(command: list[str], *, path: str | None = None, timeout: float = 3_000) -> str:
    """Run a command to its end and return its output; a failure shows the end of the output."""
    environment = os.environ | ({"PATH": path} if path else {})
    result = processes.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, f"{' '.join(command)}: exit {result.returncode}\n{output[-6000:]}"
    return output


def cross(compiler: str, system: str, processor: str) -> list[str]:
    """Return CMake options for a cross compiler."""
    return [
        f"-DCMAKE_SYSTEM_NAME={system}",
        f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
    ]


def test_the_release_build_passes() -> None:
    run([str(build("release") / "native_tests")])


@EXTENTS
def test_clang_with_address_and_undefined_behaviour_sanitizers(extent: tuple[str, ...]) -> None:
    clang = tool("clang++", package="clang")
    options = [f"-DCMAKE_CXX_COMPILER={clang}", "-DPOPHOOD_SANITIZE=address,undefined"]
    run([str(build("clang-sanitized", *options) / "native_tests"), *extent])


@EXTENTS
def test_the_thread_sanitizer_reports_nothing(extent: tuple[str, ...]) -> None:
    clang = tool("clang++", package="clang")
    options = [f"-DCMAKE_CXX_COMPILER={clang}", "-DPOPHOOD_SANITIZE=thread"]
    run([str(build("clang-threads", *options) / "native_tests"), *extent])


@EXTENTS
def test_aarch64_under_emulation(extent: tuple[str, ...]) -> None:
    linux()
    compiler = tool("aarch64-linux-gnu-g++", package="g++-aarch64-linux-gnu")
    emulator = tool("qemu-aarch64", package="qemu-user")
    folder = build("aarch64", *cross(compiler, "Linux", "aarch64"))
    run([emulator, str(folder / "native_tests"), *extent])


def test_windows_compiles() -> None:
    """Compile with mingw-w64, without optimisation; the result is not run."""
    compiler = tool("x86_64-w64-mingw32-g++-posix", package="g++-mingw-w64-x86-64-posix")
    folder = build("mingw", "-DCMAKE_BUILD_TYPE=Debug", *cross(compiler, "Windows", "AMD64"))
    assert (folder / "native_tests.exe").is_file()


@pytest.mark.full
def test_valgrind_reports_nothing() -> None:
    """Run the scalar kernels, compiled without optimisation, under memcheck."""
    linux()
    valgrind = tool("valgrind")
    folder = build("debug", "-DCMAKE_BUILD_TYPE=Debug")
    run([valgrind, "--error-exitcode=9", "--quiet", str(folder / "native_tests"), "--quick"])


def compile_commands(folder: Path) -> dict[str, str]:
    """Return the command that compiles each source file, by its path from the root."""
    entries = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
    return {Path(entry["file"]).relative_to(ROOT).as_posix(): entry["command"] for entry in entries}


def test_only_kernel_files_are_compiled_for_an_instruction_set() -> None:
    commands = compile_commands(configure("release"))
    assert any(name.startswith("native/kernels/") for name in commands)
    for name, command in commands.items():
        words = command.split()
        assert "-ffp-contract=off" in words, name
        assert not set(FORBIDDEN_FLAGS) & set(words), name
        machine = [word for word in words if word.startswith("-m") and word != "-mtls-dialect=gnu2"]
        own = KERNEL_FLAGS.get(Path(name).stem if "kernels/" in name else "")
        assert (own in machine) if own else not machine, f"{name}: {machine}"


@pytest.mark.parametrize("kernel", ["scalar", *KERNEL_FLAGS])
def test_a_kernel_file_exports_only_its_table(kernel: str) -> None:
    """The linker could keep a weak symbol that was compiled for a newer processor."""
    linux()
    folder = build("release", target="pophood_core")
    objects = list((folder / "CMakeFiles/pophood_core.dir/native/kernels").glob(f"{kernel}.cpp.o"))
    if not objects and os.uname().machine != "x86_64":
        pytest.skip(f"this processor has no {kernel}")
    symbols = [line.split() for line in run(["nm", "--defined-only", "-C", str(objects[0])]).splitlines()]
    exported = {" ".join(words[2:]) for words in symbols if words[1].isupper() or words[1] in "vwu"}
    shared = {"pophood::gelu_erf(float*, long)"} if kernel == "scalar" else set()
    table = "quantized" if kernel == "avx512vnni" else "kernels"
    assert exported == {f"pophood::{kernel}_{table}"} | shared
