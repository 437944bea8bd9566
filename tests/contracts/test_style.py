"""ruff and mypy, as `make lint typecheck` run them: a tree that fails there fails here."""

from __future__ import annotations

import re
import sys

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.contracts.sources import tracked_files


@pytest.mark.parametrize(
    "arguments", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_the_tree_is_clean(arguments: list[str]) -> None:
    result = processes.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]


RIDDLE = re.compile(r'"""(?:Whether|What|Those|Of|The same)\b')


def test_docstrings_begin_with_the_thing_or_what_it_does() -> None:
    files = (file for file in tracked_files() if file.suffix == ".py")
    lines = ((file, line) for file in files for line in file.read_text(encoding="utf-8").splitlines())
    bad = [f"{file.relative_to(ROOT)}: {line.strip()}" for file, line in lines if RIDDLE.match(line.strip())]
    assert bad == []
