"""Builds native_tests: beside the Python module, and for other compilers, processors and sanitizers.

The others are built without Python, each in its own folder below build/native/, which later runs reuse.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from pophood.system import file_lock
from tests import processes
from tests.conftest import ROOT


def configure(name: str, *options: str) -> Path:
    """Configure a build without Python, in which warnings are errors; return its folder."""
    folder = ROOT / "build" / "native" / name
    common = ["-G", "Ninja", "-DPOPHOOD_PYTHON=OFF", "-DPOPHOOD_WERROR=ON", *options]
    with build_lock(folder):
        cmake("-S", str(ROOT), "-B", str(folder), *common)
    return folder


def build(name: str, *options: str, target: str = "native_tests") -> Path:
    """Configure and build a target; return the folder."""
    folder = configure(name, *options)
    with build_lock(folder):
        cmake("--build", str(folder), "--target", target)
    return folder


def release(target: str = "native_tests") -> Path:
    """Build a target where `make native` has compiled the same library; return the folder."""
    folder = ROOT / "build" / "dev"
    assert (folder / "CMakeCache.txt").exists(), "run `make native` first"
    with build_lock(folder):
        cmake("--build", str(folder), "--target", target)
    return folder


def cmake(*arguments: str) -> None:
    """Run the cmake that `make` has installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("cmake", path=path)
    assert program is not None, "cmake is installed by make"
    run([program, *arguments], path=path)


def build_lock(folder: Path) -> AbstractContextManager[None]:
    """Lock a build folder, because two builds at the same time would damage ninja's records."""
    return file_lock(folder.with_name(f"{folder.name}.lock"), timeout=processes.HANG_SECONDS)


def run(
    command: list[str],
    *,
    path: str | None = None,
    timeout: float = 3_000,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end and return its output; a failure shows the end of the output."""
    environment = {**os.environ, **({"PATH": path} if path else {}), **(environment or {})}
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
    """Return CMake options for a cross compiler; these builds only run tests."""
    return [
        "-DPOPHOOD_SMALL_TILES=ON",
        f"-DCMAKE_SYSTEM_NAME={system}",
        f"-DCMAKE_SYSTEM_PROCESSOR={processor}",
        f"-DCMAKE_CXX_COMPILER={compiler}",
    ]


def compile_commands(folder: Path) -> dict[str, str]:
    """Return the command that compiles each file of native/, by its path from the root."""
    entries = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
    names = ((Path(entry["file"]), entry["command"]) for entry in entries)
    return {
        path.relative_to(ROOT).as_posix(): command
        for path, command in names
        if path.is_relative_to(ROOT / "native")
    }
