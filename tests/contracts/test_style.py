"""ruff and mypy, as `make lint typecheck` run them: a tree that fails there fails here."""

from __future__ import annotations

import sys

import pytest

from tests import processes
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "arguments", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_the_tree_is_clean(arguments: list[str]) -> None:
    result = processes.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
