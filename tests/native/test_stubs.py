"""The type stubs of the C++ module are those that nanobind's stubgen writes (`make stubs`)."""

from __future__ import annotations

import sys
from pathlib import Path

from tests import processes
from tests.conftest import ROOT


def test_the_stubs_are_up_to_date(tmp_path: Path) -> None:
    for command in (
        ["nanobind.stubgen", "-q", "-r", "-m", "pophood._native", "-O", str(tmp_path)],
        ["ruff", "format", "-q", "--config", str(ROOT / "pyproject.toml"), str(tmp_path)],
    ):
        processes.run([sys.executable, "-m", *command], cwd=ROOT, check=True)
    tracked = ROOT / "src" / "pophood" / "_native"
    names = sorted(path.name for path in tracked.glob("*.pyi"))
    assert names == sorted(path.name for path in (tmp_path / "_native").glob("*.pyi"))
    for name in names:
        generated = (tmp_path / "_native" / name).read_text(encoding="utf-8")
        assert (tracked / name).read_text(encoding="utf-8") == generated, f"{name}: run `make stubs`"
