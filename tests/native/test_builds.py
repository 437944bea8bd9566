"""Builds native/ without Python and runs its tests: with sanitizers, other compilers, and emulators."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.native.cmake import build, compile_commands, release, run
from tests.needs import linux, tool

KERNEL_FLAGS = {
    "avx2": "-mavx2",
    "avxvnni": "-mavxvnni",
    "avx512": "-mavx512f",
    "avx512vnni": "-mavx512vnni",
    "avx512bf16": "-mavx512bf16",
    "amxint8": "-mamx-int8",
    "amxbf16": "-mamx-bf16",
    "vnni256_evex": "-mavx512vnni",
}
pytestmark = pytest.mark.timeout(3_600)  # several compilers, one after the other
# Sanitizers are two to twenty times slower: only the full run tries every size there.
EXTENTS = pytest.mark.parametrize("extent", [("--quick",), pytest.param((), marks=pytest.mark.full)])
FORBIDDEN_FLAGS = ("-ffast-math", "-Ofast", "-march=native", "-mtune=native", "-flto")


def test_the_release_build_passes() -> None:
    run([str(release() / "native_tests")])


@EXTENTS
def test_clang_with_address_and_undefined_behaviour_sanitizers(extent: tuple[str, ...]) -> None:
    clang = tool("clang++", package="clang")
    options = [f"-DCMAKE_CXX_COMPILER={clang}", "-DPOPHOOD_SANITIZE=address,undefined"]
    run([str(build("clang-sanitized", *options) / "native_tests"), *extent])


@pytest.mark.full
def test_the_thread_sanitizer_reports_nothing() -> None:
    clang = tool("clang++", package="clang")
    options = [f"-DCMAKE_CXX_COMPILER={clang}", "-DPOPHOOD_SANITIZE=thread"]
    run([str(build("clang-threads", *options) / "native_tests")])


@pytest.mark.full
def test_valgrind_reports_nothing() -> None:
    """Run the scalar kernels, compiled without optimisation, under memcheck."""
    linux()
    valgrind = tool("valgrind")
    folder = build("debug", "-DCMAKE_BUILD_TYPE=Debug")
    run([valgrind, "--error-exitcode=9", "--quiet", str(folder / "native_tests"), "--quick"])


def test_only_kernel_files_are_compiled_for_an_instruction_set() -> None:
    commands = compile_commands(release("pophood_core"))
    assert any(name.startswith("native/kernels/") for name in commands)
    for name, command in commands.items():
        words = command.split()
        assert "-ffp-contract=off" in words, name
        assert not set(FORBIDDEN_FLAGS) & set(words), name
        machine = [word for word in words if word.startswith("-m") and word != "-mtls-dialect=gnu2"]
        own = KERNEL_FLAGS.get(Path(name).stem if "kernels/" in name else "")
        assert (own in machine) if own else not machine, f"{name}: {machine}"


@pytest.mark.parametrize(
    "kernel", ["scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amxint8", "amxbf16"]
)
def test_a_kernel_file_exports_only_its_table(kernel: str) -> None:
    """The linker could keep a weak symbol that was compiled for a newer processor."""
    linux()
    folder = release("pophood_core")
    objects = list((folder / "CMakeFiles/pophood_core.dir/native/kernels").glob(f"{kernel}.cpp.o"))
    if not objects and os.uname().machine != "x86_64":
        pytest.skip(f"this processor has no {kernel}")
    symbols = [line.split() for line in run(["nm", "--defined-only", "-C", str(objects[0])]).splitlines()]
    exported = {" ".join(words[2:]) for words in symbols if words[1].isupper() or words[1] in "vwu"}
    shared = {"pophood::gelu_erf(float*, long)"} if kernel == "scalar" else set()
    table = "quantized" if kernel.endswith(("vnni", "int8")) else "kernels"
    assert exported == {f"pophood::{kernel}_{table}"} | shared
