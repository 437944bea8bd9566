"""With CI=true a skip because of a missing tool is a failure; without it the tool is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.needs import forbidden_skip

ONE_TEST = """
import pytest
from tests.needs import tool
{level}
def test_with_a_tool():
    tool("no-such-compiler", package="no-such-package")
"""


def run_one(folder: Path, *, ci: bool, level: str = "") -> subprocess.CompletedProcess[str]:
    """Run a test file of one test under this project's conftest."""
    (folder / "test_one.py").write_text(ONE_TEST.format(level=level))
    environment = {key: value for key, value in os.environ.items() if key != "CI"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"CI": "true"} if ci else {})
    return processes.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rs",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            folder,
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_tool_skips_by_its_name(tmp_path: Path) -> None:
    result = run_one(tmp_path, ci=False)
    assert result.returncode == 0, result.stdout
    assert "needs tool: no-such-compiler (Debian package no-such-package; make system-deps)" in result.stdout


@pytest.mark.parametrize("level", ["", "pytest.skip('needs tool: x', allow_module_level=True)"])
def test_on_ci_it_fails(tmp_path: Path, level: str) -> None:
    result = run_one(tmp_path, ci=True, level=level)
    assert result.returncode != 0, result.stdout
    assert "with CI=true this skip is a failure: needs tool:" in result.stdout


@pytest.mark.parametrize(
    "reason", ["Skipped: GPT-2 weights are not here: set POPHOOD_TEST_GPT2", "this processor has no AVX-512"]
)
def test_what_no_install_can_bring_may_skip(reason: str) -> None:
    assert forbidden_skip(reason, {"CI": "true"}) is None
    assert forbidden_skip("because I say so", {"CI": "true"}) is not None
