"""`make release-check`: builds what a release would publish from a clean clone, checks it, and uses it.

Nothing is published. Every step that fails is listed at the end; a Python that this machine does not have is
named as not run. The clone and what is built lie in build/release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import processes
from tests.conftest import ROOT

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
STABLE = (3, 12)  # from here on one wheel fits all: the stable ABI
PLACES = ("~/.pyenv/versions/{0}.*/bin/python{0}", "~/.local/share/uv/python/cpython-{0}*/bin/python{0}")
DATED = r"^## \[{}\] - (\d{{4}}-\d{{2}}-\d{{2}})$"


@dataclass(slots=True)
class ReleaseReport:
    """The steps that were run and how they ended; `faults` are those that failed."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def done(self, what: str) -> None:
        """Note a step that succeeded."""
        self.lines.append(f"ok       {what}")
        print(self.lines[-1], flush=True)

    def fault(self, what: str) -> None:
        """Note a step that failed."""
        self.faults.append(what)
        self.lines.append(f"FAILED   {what}")
        print(self.lines[-1], flush=True)

    def not_run(self, what: str) -> None:
        """Note a step that this machine cannot do."""
        self.lines.append(f"not run  {what}")
        print(self.lines[-1], flush=True)

    def step(self, what: str, *command: str | Path, cwd: Path, **environment: str) -> bool:
        """Run a command, note how it ended, and return whether it succeeded."""
        scripts = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = processes.run(
            [str(word) for word in command],
            cwd=cwd,
            env=os.environ | {"PATH": scripts} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=3_000,
        )
        if done.returncode:
            self.fault(f"{what}: {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        else:
            self.done(what)
        return done.returncode == 0


def text_faults(root: Path) -> Iterator[str]:
    """Compare the version of pyproject.toml with the texts that name it: changelog, citation, package."""
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    dated = re.search(DATED.format(re.escape(version)), _text(root, "CHANGELOG.md"), re.MULTILINE)
    if dated is None:
        yield f"CHANGELOG.md has no line `## [{version}] - YYYY-MM-DD`"
    citation = dict(re.findall(r"^([\w-]+): (.*)$", _text(root, "CITATION.cff"), re.MULTILINE))
    if citation.get("version") != version:
        yield f"CITATION.cff is of version {citation.get('version')}, pyproject.toml of {version}"
    released = citation.get("date-released")
    if dated is not None and released is not None and released.strip("'\"") != dated[1]:
        yield f"CITATION.cff was released on {released}, CHANGELOG.md says {dated[1]}"
    package = re.search(r'^__version__ = "(.*)"$', _text(root, "src/pophood/__init__.py"), re.MULTILINE)
    if package is None or package[1] != version:
        yield f"src/pophood/__init__.py is not of version {version}"


def _text(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def interpreter(version: str) -> Path | None:
    """Return a Python of this version on this machine: on the path, of pyenv, or of uv."""
    found = [shutil.which(f"python{version}")]
    for place in PLACES:
        pattern = Path(place.format(version)).expanduser()
        found += sorted(map(str, Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor)))))
    for place in filter(None, found):
        says = ["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = processes.run([place, *says], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return Path(place)
    return None


def build(report: ReleaseReport, clone: Path, pythons: dict[str, Path]) -> Path | None:
    """Build the page, the sdist and one wheel for each ABI; return the folder of what would be published."""
    dist, raw = clone / "dist", clone / "raw"
    words: list[str | Path] = ["-m", "build", "--no-isolation", "--outdir", raw, clone]
    if not report.step("the studio's page", sys.executable, "studio/make.py", cwd=clone):
        return None
    if not report.step("sdist, and wheel of this Python", sys.executable, *words, cwd=clone):
        return None
    sdist = next(raw.glob("*.tar.gz"))
    newer = next((python for version, python in pythons.items() if version_of(version) >= STABLE), None)
    own = sys.version_info[:2] < STABLE
    if newer is None or not own:
        report.not_run(
            f"a second wheel: {'no Python 3.12 or newer' if own else 'this Python makes the stable one'}"
        )
    else:
        wheel: list[str | Path] = ["-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", raw, sdist]
        pins = {"PIP_CONSTRAINT": str(clone / "constraints.txt")}
        report.step("wheel of the stable ABI, from the sdist by pip", newer, *wheel, cwd=raw, **pins)
    dist.mkdir()
    shutil.copy(sdist, dist)
    for wheel_file in sorted(raw.glob("*.whl")):
        audit: list[str | Path] = [
            sys.executable,
            "-m",
            "auditwheel",
            "repair",
            "--wheel-dir",
            dist,
            wheel_file,
        ]
        report.step(f"auditwheel: {wheel_file.name}", *audit, cwd=clone)
    return dist


def version_of(text: str) -> tuple[int, ...]:
    """Parse "3.12" as (3, 12)."""
    return tuple(map(int, text.split(".")))


def check(report: ReleaseReport, clone: Path, dist: Path) -> None:
    """Test what the files hold, and how an index would show them."""
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/test_packaging.py"]
    tests += ["-k", "holds or metadata"]
    found = {"POPHOOD_DIST": str(dist)}
    report.step("contents of wheel and sdist", sys.executable, *tests, cwd=clone, **found)
    files = sorted(dist.iterdir())
    report.step("twine check --strict", sys.executable, "-m", "twine", "check", "--strict", *files, cwd=clone)


def use(report: ReleaseReport, clone: Path, dist: Path, version: str, python: Path) -> None:
    """Install a wheel into a bare environment of one Python, and use it."""
    folder, stable = clone / f"bare-{version}", version_of(version) >= STABLE
    wheels = sorted(dist.glob("*-abi3-*.whl" if stable else f"*-cp{version.replace('.', '')}-*.whl"))
    if not wheels:
        report.fault(f"Python {version}: no wheel for it was built")
        return
    bare = folder / "bin" / "python"
    pip: list[str | Path] = [
        bare,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        clone / "constraints.txt",
    ]
    what = f"Python {version}: {wheels[0].name}"
    if not report.step(f"{what}: environment", python, "-m", "venv", folder, cwd=clone):
        return
    if report.step(f"{what}: installed", *pip, wheels[0], cwd=folder):
        report.step(f"{what}: used", bare, clone / "tests" / "wheel_smoke.py", cwd=folder)


def main() -> int:
    """Check the release of HEAD; 0 if nothing failed."""
    report = ReleaseReport()
    changed = ["git", "status", "--porcelain", "--untracked-files=no"]
    if processes.run(changed, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        report.fault("there are changes that are not committed: the clone does not have them")
    clone = ROOT / "build" / "release"
    shutil.rmtree(clone, ignore_errors=True)
    if not report.step("a clean clone", "git", "clone", "-q", "--no-hardlinks", ROOT, clone, cwd=ROOT):
        return 1
    for fault in text_faults(clone):
        report.fault(fault)
    found = {version: python for version in PYTHONS if (python := interpreter(version))}
    dist = build(report, clone, found)
    if dist is not None:
        check(report, clone, dist)
        for version in PYTHONS:
            if version in found:
                use(report, clone, dist, version, found[version])
            else:
                report.not_run(f"Python {version}: not on this machine")
    print(f"{len(report.faults)} failed" if report.faults else f"ready to publish: {dist}")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
