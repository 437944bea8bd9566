"""Arrows point one way: import-linter reads the contracts of pyproject.toml, and would notice a breach."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT

# The editable install's finder would show the project's own package whatever the path says.
CODE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable")]
sys.path.insert(0, "src")
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the package below `root`."""
    return processes.run(
        [sys.executable, "-c", CODE, "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_layers_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors.py", "import pophood.config"),  # upwards
        ("config.py", "import torch"),  # an oracle in the product
        ("formats/tensors.py", "import pophood.sampling"),  # a sibling
    ],
)
def test_a_breach_is_noticed(tmp_path: Path, module: str, line: str) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "src" / "pophood" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    assert result.returncode != 0, result.stdout
    assert f"pophood.{module.removesuffix('.py').replace('/', '.')}" in result.stdout
