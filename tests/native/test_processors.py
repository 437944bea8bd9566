"""Kernels for newer Arm processors, under emulation, and for AVX-VNNI without AVX-512."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.native.cmake import build, compile_commands, configure, cross, release, run
from tests.needs import linux, tool

pytestmark = pytest.mark.timeout(3_600)  # a whole compilation
# The choice on processors with matrix products of bytes, with dot products, and with neither.
ARM_PROCESSORS = {
    "max": "scalar neon dotprod i8mm",
    "cortex-a76": "scalar neon dotprod",
    "cortex-a53": "scalar neon",
}
ARM_FLAGS = {"neon_dotprod": "-march=armv8.2-a+dotprod", "neon_i8mm": "-march=armv8.2-a+i8mm"}
ARM_INSTRUCTIONS = re.compile(r"\t(?:[su]dot|usdot|sudot|[su]mmla|usmmla)\t")
EVEX = re.compile(r"^\s*[0-9a-f]+:\t62 ", re.MULTILINE)  # in 64-bit code this first byte begins nothing else


def aarch64_options() -> list[str]:
    return cross(tool("aarch64-linux-gnu-g++", package="g++-aarch64-linux-gnu"), "Linux", "aarch64")


def emulator(processor: str) -> list[str]:
    return [tool("qemu-aarch64", package="qemu-user"), "-cpu", processor]


@pytest.mark.full
def test_aarch64_under_emulation() -> None:
    """Every kernel gives the bits of the scalar one, on a processor that has them all."""
    linux()
    program = str(build("aarch64", *aarch64_options()) / "native_tests")
    output = run([*emulator("max"), program])
    assert output.startswith(f"kernels: {ARM_PROCESSORS['max']}\n")


@pytest.mark.full
@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_an_arm_processor_is_given_the_kernels_that_it_can_run(processor: str) -> None:
    linux()
    program = str(build("aarch64", *aarch64_options()) / "native_tests")
    output = run([*emulator(processor), program, "--kernels"])
    assert output == f"kernels: {ARM_PROCESSORS[processor]}\n"
    tokens = run([*emulator(processor), program, "--decode", "1"])  # an illegal instruction would end it
    assert tokens.startswith("1 tokens")


@pytest.mark.full
def test_newer_arm_instructions_are_in_their_own_files_alone() -> None:
    linux()
    options = aarch64_options()
    objdump = tool("aarch64-linux-gnu-objdump", package="g++-aarch64-linux-gnu")
    folder = build("aarch64", *options)
    objects = sorted((folder / "CMakeFiles/pophood_core.dir/native").rglob("*.o"))
    using = {path for path in objects if ARM_INSTRUCTIONS.search(run([objdump, "-d", str(path)]))}
    assert {path.name.partition(".")[0] for path in using} == set(ARM_FLAGS)
    for path in using:
        symbols = run(["nm", "--defined-only", "-C", str(path)]).splitlines()
        exported = {
            line.split()[-1] for line in symbols if line.split()[1].isupper() or line.split()[1] in "vwu"
        }
        name = path.name.partition(".")[0].removeprefix("neon_")
        assert exported == {f"pophood::{name}_quantized"}
    for name, command in compile_commands(configure("aarch64", *options)).items():
        own = ARM_FLAGS.get(Path(name).stem)
        assert [word for word in command.split() if word.startswith("-m")] == ([own] if own else []), name


def test_the_avx_vnni_kernels_hold_no_evex_instruction() -> None:
    """A processor with AVX-VNNI and without AVX-512 would stop at one."""
    listing = x86_listing("avxvnni")
    assert "vpdpbusd" in listing
    assert EVEX.findall(listing) == []
    assert EVEX.findall(x86_listing("avx512vnni")) != []


def x86_listing(kernel: str) -> str:
    linux()
    folder = release("pophood_core") / "CMakeFiles/pophood_core.dir/native/kernels"
    path = folder / f"{kernel}.cpp.o"
    if not path.exists():
        pytest.skip(f"this processor has no {kernel}")
    return run(["objdump", "--disassemble", str(path)])


def test_the_avx_vnni_kernels_run_where_the_processor_has_it() -> None:
    """The tests of the release build include them; elsewhere their source is tested in EVEX encoding."""
    linux()
    output = run([str(release() / "native_tests"), "--kernels"])
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    has = flags is not None and "avx_vnni" in flags[1].split()
    assert ("avxvnni" in output.split()) == has
    if not has:
        pytest.skip("this processor has no AVX-VNNI: its kernels are compiled and not run here")
