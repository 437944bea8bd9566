"""Processors without AVX-512, and without AVX2, under emulation: nothing illegal, and the same text."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.needs import linux, tool
from tests.tiny_folder import tiny_folder

# SandyBridge has AVX, but neither AVX2 nor FMA; Haswell has both, and no AVX-512.
PROCESSORS = {"SandyBridge": ["scalar"], "Haswell": ["scalar", "avx2"]}
RUN = ["run", "--json", "--greedy", "--max-tokens", "16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("masked") / "llama"
    tiny_folder(path, "llama")
    return path


def python(*arguments: str, emulator: tuple[str, ...] = ()) -> str:
    result = processes.run(
        [*emulator, sys.executable, *arguments],
        env=os.environ | {"POPHOOD_OFFLINE": "1", "POPHOOD_ISA": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 0, f"{result.returncode}\n{result.stderr[-3000:]}"
    return str(result.stdout)


def text(folder: Path, precision: str, emulator: tuple[str, ...] = ()) -> list[tuple[int, float]]:
    command = ["-m", "pophood", *RUN, "-m", str(folder), "--precision", precision, "a b c"]
    output = json.loads(python(*command, emulator=emulator))["outputs"][0]
    return [(token["id"], token["logit"]) for token in output["tokens"]]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_text_is_the_same_without_newer_instructions(processor: str, folder: Path) -> None:
    linux()
    if platform.machine() != "x86_64":
        pytest.skip("this processor has no x86-64 instructions")
    emulator = (tool("qemu-x86_64", package="qemu-user"), "-cpu", processor)
    names = "from pophood.model.engine import instruction_sets; print(*instruction_sets())"
    assert python("-c", names, emulator=emulator).split() == PROCESSORS[processor]
    for precision in ("f32", "q8"):
        expected = text(folder, precision)
        assert len(expected) == 16
        assert text(folder, precision, emulator) == expected
