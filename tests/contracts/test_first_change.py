"""docs/first-change.md, followed to the letter in a copy of the source: it works, and its tests pass."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pophood._native
from tests import processes
from tests.conftest import ROOT
from tests.tiny import tiny_folder

PAGE = (ROOT / "docs" / "first-change.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (Add a \w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
# Runs a program on the copy: an editable installation would find the package in this tree first.
START = (
    "import runpy, sys; sys.meta_path = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]; "
    "sys.path[:0] = ['src', '.']; sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def edit(tree: Path, block: str) -> None:
    """Make the change of one block: its first line says which file, and below which line."""
    place, _, code = block.partition("\n")
    if created := re.fullmatch(r"# new file: (\S+)", place):
        assert not (tree / created[1]).exists()
        (tree / created[1]).write_text(code, encoding="utf-8")
        return
    below = re.fullmatch(r"# (\S+), below: `(.+)`", place)
    assert below is not None, place
    path, line = tree / below[1], below[2]
    text = path.read_text(encoding="utf-8")
    assert text.count(f"\n{line}\n") == 1, f"{below[1]} has not one line {line!r}"
    path.write_text(text.replace(f"\n{line}\n", f"\n{line}\n{code}"), encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the source and of what its tests import."""
    tree = tmp_path / "tree"
    skip = shutil.ignore_patterns("__pycache__", "dist")
    shutil.copytree(ROOT / "src", tree / "src", ignore=skip)
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__", "data"))
    (tree / "tests" / "data").symlink_to(ROOT / "tests" / "data")
    shutil.copy(ROOT / "pyproject.toml", tree)
    native = Path(str(pophood._native.__file__))
    shutil.copy(native, tree / "src" / "pophood" / native.name)
    return tree


def run(tree: Path, *words: str) -> str:
    """Run a module of Python in the copy and return what it printed."""
    result = processes.run(
        [sys.executable, "-c", START, *words],
        cwd=tree,
        env=os.environ | {"POPHOOD_OFFLINE": "1", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return str(result.stdout)


@pytest.mark.parametrize("section", ["Add a view", "Add a sampler"])
def test_a_walk_through_leads_where_it_says(section: str, tree: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(python|sh)\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)
    for kind, block in blocks:
        if kind == "python":
            edit(tree, block)
    files = [str(path) for _, block in blocks for path in re.findall(r"^# (?:new file: )?([^\s,]+)", block)]
    tests = [name for name in files if name.startswith("tests/")]
    assert len(tests) == 1
    changed = sorted({name for name in files if name.startswith("src/")})
    run(tree, "ruff", "check", *changed, *tests)
    assert " passed" in run(tree, "pytest", "-q", "-p", "no:cacheprovider", *tests)
    model = tiny_folder(tmp_path / "model", "llama")
    printed = [
        run(tree, "pophood", *shlex.split(line)[1:], "-m", str(model))
        for kind, block in blocks
        if kind == "sh"
        for line in block.splitlines()
    ]
    if section == "Add a view":
        assert "is most undecided after" in printed[2]
        assert (tree / "entropy.svg").stat().st_size > 1000
    else:
        run(tree, "doctest", "src/pophood/sampling/filters.py")
        assert "--top-n-sigma" in run(tree, "pophood", "run", "--help")


def test_the_family_has_its_own_walk_through() -> None:
    assert "FAMILIES[SEED_OSS.name]" in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "families" / "test_adding_one.py").is_file()
    assert list(SECTIONS) == ["Add a view", "Add a sampler", "Add a family"]
