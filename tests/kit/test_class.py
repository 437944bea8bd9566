"""A whole class: a kit with torch and smollm2, carried where no network is, set up and used there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.conftest import ROOT
from tests.contracts.test_packaging import built, run, with_scripts
from tests.needs import linux, tool
from tests.release import PYTHONS, STABLE, interpreter, version_of

__all__ = ["built"]  # the fixture with the wheel of this tree
TEXT = ROOT / "tests" / "data" / "tinyshakespeare" / "first-120000.txt"
PAGES = 10
NOTHING_BUT_LO = """
import os, socket, sys
assert {line.split(":")[0].strip() for line in open("/proc/net/dev").readlines()[2:]} == {"lo"}, "interfaces"
assert not open("/proc/net/route").readlines()[1:], "routes"
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print(error)
else:
    sys.exit("a connection was made")
"""


USERS = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def real_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the folder's fixtures did to pip; skip where it reaches no package index."""
    for name in ("PIP_CONFIG_FILE", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    for name, value in USERS.items():
        monkeypatch.setenv(name, value)
    index = [sys.executable, "-m", "pip", "index", "versions", "click"]
    done = processes.run(index, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"needs a package index: {done.stderr[-200:]}")


def no_interface() -> list[str]:
    """Return what starts a command where there is no network interface but `lo`, or skip."""
    linux()
    unshare = [tool("unshare", package="util-linux"), "--map-root-user", "--net"]
    if processes.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("needs namespaces: this system does not allow `unshare --net`")
    return unshare


@pytest.mark.full
def test_laptops_with_different_pythons(
    built: tuple[Path, Path], smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kit with the real wheels sets up a laptop of each Python that is here, without a network."""
    apart = no_interface()
    real_pip(monkeypatch)
    here = {version: found for version in PYTHONS if (found := interpreter(version))}
    newer = [python for version, python in here.items() if version_of(version) >= STABLE]
    if len(here) < 2 or not newer:
        pytest.skip("needs tool: Python 3.12 or newer, and another")
    raw, wheels, kit = tmp_path / "raw", tmp_path / "dist", tmp_path / "class"
    pip: list[str | Path] = ["-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", raw, built[1]]
    run(newer[0], *pip, env=os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}, cwd=tmp_path)
    for wheel in (built[0], next(raw.glob("*.whl"))):
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", wheels, wheel, env=with_scripts())
    words: list[str | Path] = ["kit", kit, "--models", "smollm2", "--wheel", wheels, "--no-slides"]
    teacher = os.environ | {"POPHOOD_MODELS": str(smollm2.parent.parent)}
    said = run(sys.executable, "-m", "pophood", *words, env=teacher, cwd=tmp_path)
    assert f"for Python {', '.join(PYTHONS)} on linux-x86_64" in said
    for version, python in here.items():
        laptop = tmp_path / f"laptop {version}"
        (laptop / "bin").mkdir(parents=True)
        (laptop / "bin" / "python3").symlink_to(python)
        bare = {"PATH": f"{laptop / 'bin'}:/usr/bin:/bin", "HOME": str(laptop), "LANG": "C.UTF-8"}
        said = run(*apart, "sh", kit / "setup.sh", env=bare, cwd=laptop)
        assert "ready: pophood" in said, said
        pophood = laptop / "pophood-class" / "bin" / "pophood"
        greedy = ["-m", "smollm2", "--greedy", "--max-tokens", "4"]
        said = run(*apart, pophood, "run", "The capital of Spain is", *greedy, env=bare, cwd=laptop)
        assert "Madrid" in said


@pytest.mark.full
def test_a_class_without_a_network(
    built: tuple[Path, Path], smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = no_interface()
    real_pip(monkeypatch)
    wheels = tmp_path / "dist"
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", wheels, built[0], env=with_scripts())
    kit = tmp_path / "class"
    teacher = os.environ | {"POPHOOD_MODELS": str(smollm2.parent.parent)}
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"  # torch is large: one is enough
    words: list[str | Path] = ["kit", kit, "--models", "smollm2", "--train", "--wheel", wheels]
    words += ["--python", python]
    said = run(sys.executable, "-m", "pophood", *words, env=teacher, cwd=tmp_path)
    assert f"{kit}: " in said
    assert (kit / "course" / "talk.html").stat().st_size > 100_000
    stick, laptop = tmp_path / "stick", tmp_path / "laptop"
    shutil.copytree(kit, stick)
    shutil.rmtree(kit)
    laptop.mkdir()
    path = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), "/usr/bin", "/bin"])
    bare = {"PATH": path, "HOME": str(laptop), "LANG": "C.UTF-8"}

    def on_the_laptop(*command: str | Path) -> str:
        done = processes.run(
            [*apart, *map(str, command)], env=bare, cwd=laptop, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=1_700,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    assert "unreachable" in on_the_laptop("python3", "-c", NOTHING_BUT_LO)
    said = on_the_laptop("sh", stick / "setup.sh")
    assert "ready: pophood" in said
    pophood = laptop / "pophood-class" / "bin" / "pophood"
    for page in range(1, PAGES + 1):
        assert f"{page}" in on_the_laptop(pophood, "talk", "-m", "smollm2", "--page", str(page), "--yes")
    (laptop / "notes.txt").write_bytes(TEXT.read_bytes())
    said = on_the_laptop(pophood, "tune", "notes.txt", "-m", "smollm2", "--minutes", "1", "-o", "tuned")
    assert (laptop / "tuned" / "adapter_config.json").is_file(), said
    assert on_the_laptop(pophood, "run", "To be", "-m", "smollm2", "--adapter", "tuned", "--max-tokens", "5")
    assert "ready: pophood" in on_the_laptop(pophood, "kit", "check")
    (laptop / ".local/share/pophood/models/smollm2" / smollm2.name).unlink()
    again = processes.run([str(pophood), "kit", "check"], env=bare, capture_output=True, text=True)
    assert (again.returncode, f"{smollm2.name} is missing" in again.stdout) == (1, True)
