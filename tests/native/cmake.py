"""Builds native/ without Python, for the tests of other compilers, processors and sanitizers.

Each build has its own folder below build/native/, which later runs reuse.
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
    """Return the command that compiles each source file, by its path from the root."""
    entries = json.loads((folder / "compile_commands.json").read_text(encoding="utf-8"))
    return {Path(entry["file"]).relative_to(ROOT).as_posix(): entry["command"] for entry in entries}
