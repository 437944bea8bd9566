"""Checks of what can drift: links, generated pages, the dependency table, versions, make's targets."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.contracts.sources import product_files, tracked_files

PAGES = [p for p in tracked_files() if p.suffix == ".md" and "tests" not in p.relative_to(ROOT).parts]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(requirement for extra in EXTRAS.values() for requirement in extra),
]
ROOTS = (ROOT, ROOT / "src" / "pophood", ROOT / "native")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def name_of(requirement: str) -> str:
    """`numpy` of `numpy>=2.0; sys_platform == 'linux'`, in the spelling that indexes use."""
    return re.split(r"[\s<>=!~;\[]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    lost = [t for t in targets if t and "://" not in t and not (page.parent / t).exists()]
    assert not lost


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES if page.parent == ROOT / "docs" and f"({page.name})" not in index]
    assert missing == ["index.md"]


def test_the_command_page_is_what_the_program_writes(tmp_path: Path) -> None:
    written = tmp_path / "cli.md"
    command = [sys.executable, "-m", "pophood.cli.docs", str(written)]
    processes.run(command, check=True, stdin=subprocess.DEVNULL)
    tracked = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert tracked == written.read_text(encoding="utf-8"), "run: make docs"


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").split("## Turned down")[0]
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    reasons = {name: cells[2].strip() for cells in rows for name in re.findall(r"`([\w-]+)`", cells[1])}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    names = {name_of(requirement) for requirement in [*REQUIREMENTS, *build]}
    assert names == reasons.keys()
    assert all(reasons.values())


def test_dependencies_are_what_the_package_imports() -> None:
    """No requirement that nothing uses, no import that nothing requires."""
    imported = set()
    for path in product_files():
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0].lower() for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0].lower())
    imported -= {"_typeshed", "markupsafe", "traitlets"}  # types alone; what jinja2, anywidget are made of
    used_if_there = {"certifi"}  # certificates for Pythons that come without any
    extras = ("plot", "notebook", "train", "tensorboard", "serve", "ray")
    used_if_there |= {name_of(r) for extra in extras for r in EXTRAS.get(extra, [])}
    foreign = imported - set(sys.stdlib_module_names) - {"pophood"} - used_if_there
    required = {name_of(requirement) for requirement in PROJECT["dependencies"]}
    renamed = {"markdown_it": "markdown-it-py"}  # module -> package
    assert {renamed.get(name, name.replace("_", "-")) for name in foreign} == required


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name_of(line): line for line in lines if line and not line.startswith("#")}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins.values())
    assert not [r for r in REQUIREMENTS if name_of(r) not in pins]
    assert pins["torch"] == "torch==2.13.0"


def test_the_version_is_one() -> None:
    import pophood

    assert pophood.__version__ == PROJECT["version"]
    headings = re.findall(
        r"^## \[?([\w.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert headings[0] in {"Unreleased", PROJECT["version"]}


def test_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "test", "help", "lint", "format", "typecheck", "bench", "docs", "test-full"} <= targets
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = re.findall(r"(?:`|^)(?:sudo )?make ([a-z-]+(?: [a-z-]+)*)", text, re.MULTILINE)
        assert {word for words in named for word in words.split()} <= targets, page.name


def test_make_help_lists_what_there_is() -> None:
    shown = processes.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in (
        "run",
        "test",
        "test-full",
        "system-deps",
        "lint",
        "format",
        "typecheck",
        "bench",
        "docs",
        "wheel",
    ):
        assert f"make {target} " in shown


def test_an_old_python_gets_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "python").write_text(
        "#!/bin/sh\n"
        'code=$(printf %s "$2" | sed "s/>= (3, 11)/>= (99, 0)/")\n'
        f'exec {sys.executable} -c "$code"\n'
    )
    (tmp_path / "python").chmod(0o755)
    command = ["make", f"PYTHON={tmp_path}/python", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/created"]
    result = processes.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert re.search(
        r"^pophood needs Python 3\.11 or newer; .* is 3\.\d+: try make PYTHON=", result.stderr, re.MULTILINE
    )
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_pages_name_exist(page: Path) -> None:
    """`train/loop/step.py` is a file of the package, `native/engine/engine.h` one of the project."""
    named = set(
        re.findall(r"`((?:[a-z_]+/)+[A-Za-z_]+\.(?:py|cpp|h|inl|toml))`", page.read_text(encoding="utf-8"))
    )
    lost = [name for name in named if not any((root / name).is_file() for root in ROOTS)]
    assert sorted(lost) == []
