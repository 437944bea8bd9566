"""Which wheels a laptop needs: pip resolves them for its Python, and markers are read as that Python would.

pip resolves for another Python and platform, but evaluates environment markers as the Python that runs it:
what only the laptops' Python needs is asked for in another round, what only this one needs is left out.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pophood.errors import BadFile, BadInput, NotFound
from pophood.hub.pip_run import run_pip
from pophood.kit.platforms import LaptopPlatform, applies, fits, wheel_name
from pophood.system import unique
from pophood.train.torch_install import CPU_INDEX

MOST_ROUNDS = 5  # of requirements that only the laptops' Python has; one is usual


@dataclass(frozen=True, slots=True)
class LockedWheel:
    """A wheel that a laptop gets: its exact version, file and hash."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Target:
    """The laptops of one Python version, and the options that make pip look for their wheels."""

    platform: LaptopPlatform
    python: tuple[int, int]
    glibc: int  # the minor version that pophood's own wheel needs

    @property
    def text(self) -> str:
        """The version as people write it: "3.12"."""
        return f"{self.python[0]}.{self.python[1]}"

    @property
    def pip_options(self) -> list[str]:
        """The options of pip for these laptops."""
        words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.text]
        for tag in self.platform.tags(self.glibc):
            words += ["--platform", tag]
        return words


def lock(target: Target, wanted: Sequence[str], scratch: Path) -> list[LockedWheel]:
    """Return every wheel that the requirements need on such laptops, by name.

    Raises NotFound with pip's reason if it finds no set of wheels, OSError for a full disk.
    """
    asked = list(wanted)
    for _ in range(MOST_ROUNDS):
        found = _resolve(target, asked, scratch)
        needed, missing = _closure(target, wanted, found)
        if not missing:
            return [_locked(found[name]) for name in sorted(needed)]
        asked += missing
    raise NotFound(f"the wheels for Python {target.text} need ever more others: {', '.join(missing)}")


def _resolve(target: Target, wanted: Sequence[str], scratch: Path) -> dict[str, dict[str, Any]]:
    """Let pip choose versions, and return what it would install by name."""
    folder = scratch / f"pip-{unique()}"
    folder.mkdir(parents=True)
    report = folder / "report.json"
    arguments = ["install", "--dry-run", "--ignore-installed", "--target", str(folder / "nowhere")]
    arguments += ["--report", str(report), *target.pip_options, *wanted]
    try:
        pip = run_pip(arguments, folder)
        if pip.code:
            raise NotFound(
                f"pip found no set of wheels for Python {target.text} on {target.platform.name} "
                f"({pip.reason}): see that the index that pip uses can be reached and has them, or leave "
                "this Python out with --python"
            )
        items: list[dict[str, Any]] = json.loads(report.read_bytes())["install"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {canonicalize_name(item["metadata"]["name"]): item for item in items}


def _closure(
    target: Target, wanted: Sequence[str], found: dict[str, dict[str, Any]]
) -> tuple[set[str], list[str]]:
    """Walk the requirements as the laptops read them: the names needed, and requirements not found."""
    values = target.platform.marker_values(target.text)
    queue = deque(map(Requirement, wanted))
    needed: dict[str, set[str]] = {}
    missing: list[str] = []
    while queue:
        requirement = queue.popleft()
        name = canonicalize_name(requirement.name)
        if name not in found:
            missing.append(str(requirement).partition(";")[0].strip())
            continue
        seen = needed.setdefault(name, set())
        extras = {extra for extra in ("", *requirement.extras) if extra not in seen}
        seen |= extras
        for text in found[name]["metadata"].get("requires_dist", ()) if extras else ():
            inner = Requirement(text)
            if inner.marker is None or applies(str(inner.marker), values, sorted(extras)):
                queue.append(inner)
    return set(needed), missing


def _locked(item: dict[str, Any]) -> LockedWheel:
    source = item["download_info"]
    file = unquote(urlsplit(source["url"]).path).rpartition("/")[2]
    digest = source.get("archive_info", {}).get("hashes", {}).get("sha256")
    name, version, _ = wheel_name(file)
    if digest is None:
        raise BadFile(f"{file}: the index gives no SHA-256 for it, so a laptop could not check it")
    return LockedWheel(name, version, file, digest)


def fetch_wheel(target: Target, wheel: LockedWheel, folder: Path) -> Path:
    """Let pip download one wheel, with its hash, into a new folder inside `folder`.

    Raises NotFound with pip's reason, OSError for a full disk.
    """
    wish = folder / "wish.txt"
    wish.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    arguments = ["download", "--no-deps", "--dest", str(folder), *target.pip_options]
    pip = run_pip([*arguments, "--requirement", str(wish)], folder)
    if pip.code or not (folder / wheel.file).is_file():
        raise NotFound(
            f"pip could not fetch {wheel.file} ({pip.reason}): run the same command again to go on"
        )
    return folder / wheel.file


def extras_of(names: Sequence[str], project: str = "pophood") -> dict[str, list[Requirement]]:
    """Return the requirements of pophood's extras by name; BadInput for an extra that it does not have."""
    every = [Requirement(text) for text in requires(project) or ()]
    found: dict[str, list[Requirement]] = {name: [] for name in names}
    for requirement in every:
        for name in names:
            if requirement.marker is not None and f'extra == "{name}"' in str(requirement.marker):
                found[name].append(requirement)
    empty = [name for name in names if not found[name]]
    if empty:
        raise BadInput(f"--extra {empty[0]}: pophood has no such extra: see docs/dependencies.md")
    return found


def torch_here(wheels: Sequence[Path], target: Target, wanted: Requirement) -> Path | None:
    """Return a wheel of torch's CPU build among files that fits such laptops, or None."""
    for path in wheels:
        name, version, _ = wheel_name(path)
        right = name == "torch" and wanted.specifier.contains(version) and version.endswith("+cpu")
        if right and fits(path, target.platform, target.python):
            return path
    return None


def fetch_torch(target: Target, wanted: Requirement, folder: Path) -> Path:
    """Let pip download the CPU build of torch into a folder, and return its path.

    It comes from PyTorch's own index: the general one has builds for CUDA, which take gigabytes. Raises
    NotFound if there is none.
    """
    arguments = ["download", "--no-deps", "--dest", str(folder), *target.pip_options]
    arguments += ["--index-url", CPU_INDEX, "--retries", "1", "--timeout", "15"]
    pip = run_pip([*arguments, f"torch{wanted.specifier}"], folder)
    path = torch_here(sorted(folder.glob("*.whl")), target, wanted)
    if pip.code or path is None:
        reason = pip.reason if pip.code else "what pip found is not a build for CPUs"
        raise NotFound(
            f"torch{wanted.specifier}: no CPU build for Python {target.text} from {CPU_INDEX} ({reason}): "
            f"name a file with --wheel, leave Python {target.text} out with --python, or leave --train out"
        )
    return path
