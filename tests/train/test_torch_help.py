"""Importing torch (small: one process per case): the install command, and how its threads wait."""

from __future__ import annotations

import os
import sys

import pytest

from pophood.train import torch_install as torch_help
from tests import processes
from tests.conftest import ROOT


def test_the_command_for_torch_suits_the_system() -> None:
    assert torch_help.torch_command("linux", "py").endswith(
        "--index-url https://download.pytorch.org/whl/cpu"
    )
    assert torch_help.torch_command("darwin", "py") == "py -m pip install torch"
    assert torch_help.torch_command("win32", "C:\\py.exe").startswith('& "C:\\py.exe" -m pip')


@pytest.mark.parametrize(
    ("given", "spins"),
    [
        ({}, torch_help.SPIN_COUNT),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(given: dict[str, str], spins: str | None) -> None:
    """Runs in its own process, because it must happen before torch is imported."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    program = (
        "import os, sys; from pophood.train.torch_install import import_torch; import_torch();"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    done = processes.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(spins)
