"""How a laptop is set up: which Pythons fit, what is refused by name, and what a damaged stick says."""

from __future__ import annotations

import ensurepip
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pophood.kit import PYTHONS, KitPlan, kit_fault, make_kit
from pophood.kit.laptop import install
from pophood.kit.manifest import KIT, SUMS
from tests import processes
from tests.kit.conftest import Listener
from tests.kit.wheels import QuickPip, own
from tests.release import interpreter

EVERY = tuple(f"{major}.{minor}" for major, minor in PYTHONS)
THIS = f"{sys.version_info[0]}.{sys.version_info[1]}"
PROGRAM = "import sys; print('pophood', *sys.argv[1:])"  # what the class's pophood does in these tests


@pytest.mark.parametrize(
    ("changes", "system", "words"),
    [
        ({"pythons": ["3.99"]}, "Linux", "the kit is for 3.99: run setup.sh"),
        ({}, "Plan9", "the kit is for linux-x86_64; this is Plan9 x86_64"),
        ({"glibc": 999}, "Linux", r"the kit needs glibc 2\.999; this is glibc 2"),
        ({"installed": 10**18}, "Linux", "the disk is too full: the packages take 1,000,000,000,000,000,000"),
    ],
)
def test_the_script_refuses_other_laptops(
    changes: dict[str, Any], system: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    manifest = {"pythons": ["3.12"], "platform": "linux-x86_64", "glibc": 28, "installed": {"3.12": 10}}
    manifest |= changes if "installed" not in changes else {"installed": {"3.12": changes["installed"]}}
    with pytest.raises(SystemExit, match=words):
        install.check_laptop(manifest, "3.12", tmp_path / "new")


def test_the_script_checks_the_kit_and_leaves_foreign_folders(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "KIT", kit)
    install.check_files()
    wheel = next((kit / "wheels").glob("deeper*"))
    wheel.write_bytes(b"")
    with pytest.raises(
        SystemExit, match=r"wheels/deeper-1\.2-py3-none-any\.whl is damaged: copy the kit again"
    ):
        install.main([str(tmp_path / "new")])
    wheel.unlink()
    with pytest.raises(SystemExit, match="is missing: copy the kit again"):
        install.main([str(tmp_path / "new")])
    (kit / SUMS).unlink()
    with pytest.raises(SystemExit, match="this kit is not whole"):
        install.main([])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(SystemExit, match="was not made from a kit"):
        install.make_environment(tmp_path / "mine")
    python = install.make_environment(tmp_path / "new")
    (tmp_path / "new" / "half").write_text("of a run that was stopped", encoding="utf-8")
    assert install.make_environment(tmp_path / "new") == python
    assert python.exists()
    assert not (tmp_path / "new" / "half").exists()
    with pytest.raises(SystemExit, match=r"usage: sh setup\.sh"):
        install.main(["a", "b"])


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "cut off": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 4]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_stick_that_was_copied_badly_is_noticed(
    kind: str, kit: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `kit check` and by the set-up script, in any file, the list of the files included."""
    monkeypatch.setattr(install, "KIT", kit)
    for path in [path for path in sorted(kit.rglob("*")) if path.is_file()]:
        content = path.read_bytes()
        damaged = DAMAGE[kind](content)
        if damaged == content:
            continue
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        fault = kit_fault(kit, listener.dialogue)
        assert fault is not None and (path.name in fault or path.name == SUMS), fault
        assert fault.isprintable() and fault.endswith((": copy the kit again", f": {SUMS} is missing"))
        with pytest.raises(SystemExit, match=r"(missing|damaged).*: copy the kit again"):
            install.check_files()
        path.write_bytes(content)
    install.check_files()


def test_half_of_the_list_of_files_is_noticed(
    kit: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off between two lines, with the files that are no longer named missing."""
    monkeypatch.setattr(install, "KIT", kit)
    lines = (kit / SUMS).read_text(encoding="utf-8").splitlines(keepends=True)
    named = [n for n, line in enumerate(lines) if line.endswith(f"  {KIT}\n")]
    for kept in range(named[0] + 1, len(lines)):
        (kit / SUMS).write_text("".join(lines[:kept]), encoding="utf-8")
        assert kit_fault(kit, listener.dialogue) == f"{kit / SUMS} is damaged: copy the kit again"
        with pytest.raises(SystemExit, match="SHA256SUMS is damaged: copy the kit again"):
            install.check_files()


def python_that(folder: Path, name: str, lie: str) -> None:
    """Write a command that is this Python after some statements: a Python of another kind."""
    folder.mkdir(exist_ok=True)
    script = f"""#!/bin/sh
[ "$1" = -c ] || {{ echo "$0" "$@"; exit; }}
code=$2
shift 2
exec {shlex.quote(sys.executable)} -c "import sys
{lie}
$code" "$@"
"""
    (folder / name).write_text(script, encoding="utf-8")
    (folder / name).chmod(0o755)


NONE_FITS = "pophood kit: the kit is for Python 3.11, and this laptop has none that fits: install one first."
LIES = {
    "sys.version_info = (3, 9, 2)": "is Python 3.9",
    "sys.version_info = (2, 7, 18)": "is Python 2.7",
    "sys.modules['venv'] = sys.modules['zlib'] = None": "lacks venv, zlib of its own library",
    "sys.implementation.name = 'pypy'": "is pypy",
    "sys.maxsize = 2**31 - 1": "is of 32 bits",
    "import sysconfig; sysconfig.get_config_var = bool": "is free-threaded, which the wheels are not for",
}


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return the only folder in which a laptop's shell looks for commands: it has no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("dirname", "uname"):
        (folder / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    return folder


def run_script(kit: Path, tools: Path, *words: str) -> tuple[int, str]:
    done = processes.run(
        ["/bin/sh", str(kit / "setup.sh"), *words],
        env={"PATH": str(tools), "HOME": str(tools.parent)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_each_python_that_does_not_fit_is_named_with_its_reason(kit: Path, tools: Path) -> None:
    code, said = run_script(kit, tools)
    beginning = (
        "pophood kit: the kit is for Python 3.11, and this laptop has none that fits: install one first."
    )
    assert (code, said) == (
        1,
        f"{beginning}\n    no command python3, python, or with a version in its name\n",
    )
    (tools / "python").write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")  # as pyenv's, of no version
    (tools / "python").chmod(0o755)
    rewritten = (kit / "setup.sh").read_text(encoding="utf-8").replace("3.11", THIS)
    (kit / "setup.sh").write_text(rewritten, encoding="utf-8")
    for lie, words in LIES.items():
        python_that(tools, "python3", lie)
        code, said = run_script(kit, tools)
        assert (code, said.splitlines()[1:]) == (1, [f"    python3 {words}"])
    python_that(tools, f"python{THIS}", "")
    code, said = run_script(kit, tools, "too", "many")
    assert said.endswith(f"{kit}/install.py too many\n"), "it goes on with the one that fits"


def test_other_systems_are_refused_before_anything_else(kit: Path, tools: Path) -> None:
    (tools / "uname").unlink()
    for system, machine in (("Darwin", "arm64"), ("MINGW64_NT-10.0-19045", "x86_64"), ("Linux", "aarch64")):
        fake = f"#!/bin/sh\n[ $1 = -s ] && echo {system} || echo {machine}\n"
        (tools / "uname").write_text(fake, encoding="utf-8")
        (tools / "uname").chmod(0o755)
        code, said = run_script(kit, tools)
        wanted = f"the kit is for linux-x86_64; this is {system} {machine}, which pophood has no wheels for."
        assert (code, said) == (1, f"pophood kit: {wanted}\n")


@pytest.fixture
def real_wheels(index: Path, tmp_path: Path) -> Path:
    """Put a real pip into the index, and give a pophood that prints its arguments."""
    bundled = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not bundled:
        pytest.skip("needs a Python whose ensurepip brings its wheel")
    next(index.glob("pip-*")).unlink()
    shutil.copy(bundled[-1], index)
    return own(tmp_path / "printing", tags=["cp311-cp311", "cp312-abi3"], program=PROGRAM)


@pytest.mark.parametrize(
    "version", [pytest.param(v, marks=() if v == THIS else pytest.mark.full) for v in EVERY]
)
def test_it_is_set_up_from_a_stick_that_nobody_writes_to(
    version: str,
    plan: KitPlan,
    real_wheels: Path,
    tmp_path: Path,
    listener: Listener,
    quick_pip: QuickPip,
) -> None:
    """Twice, from and into folders whose names have spaces and letters beyond ASCII."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"needs tool: Python {version}")
    kit, target = tmp_path / "Año 1: la clase de Łukasz", tmp_path / "el portátil" / "aquí"
    make_kit(replace(plan, wheels=(real_wheels,), pythons=None, language="es"), kit, listener.dialogue)
    before = {path: path.stat().st_mtime_ns for path in kit.rglob("*")}
    for _ in range(2):
        done = processes.run(
            [str(python), str(kit / "install.py"), str(target)],
            env={"PATH": os.defpath, "HOME": str(tmp_path), "LANG": "C"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"pophood kit models {kit}\npophood kit check\n" in done.stdout
        assert f"begin with: '{target}/bin/pophood' talk -m tiny --language es" in done.stdout
        module = target / "lib" / f"python{version}" / "site-packages" / "compiled" / "__init__.py"
        assert f"cp{version.replace('.', '')}" in module.read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in kit.rglob("*")} == before
