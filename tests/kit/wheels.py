"""Small wheels, made by hand, and a folder of them in the place of a package index."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pophood.errors import NotFound
from pophood.kit.packages import LockedWheel, Target
from pophood.kit.platforms import fits, wheel_name

VERSION = "0.1.0"
LINUX = "manylinux_2_28_x86_64"


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    tag: str = "py3-none-any",
    needs: Sequence[str] = (),
    content: str = "",
    program: str = "",
) -> Path:
    """Write a wheel with one module, and return its path; `program` is what `python -m` runs."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {need}\n" for need in needs)
    metadata += "Provides-Extra: train\n"
    texts = {
        f"{module}/__init__.py": content,
        **({f"{module}/__main__.py": program} if program else {}),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = ""
    for member, text in texts.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{member},sha256={digest},{len(text.encode())}\n"
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in (texts | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            archive.writestr(member, text)
    return path


def fill_index(folder: Path) -> None:
    """Write what the pophood of `own` needs, and what it does not."""
    wheel(folder, "pip", "99.0")
    wheel(folder, "everywhere", needs=["deeper>=1"])
    wheel(folder, "deeper", "1.2", needs=['not-here; sys_platform == "win32"'])
    wheel(folder, "deeper", "0.9")
    wheel(folder, "only-old")
    wheel(folder, "only-new", needs=["newer-still"])
    wheel(folder, "newer-still")
    wheel(folder, "torch-needs")
    for tag in ("cp311-cp311", "cp312-cp312", "cp313-cp313", "cp314-cp314"):
        wheel(folder, "compiled", tag=f"{tag}-{LINUX}", content=tag)


def own(
    folder: Path,
    version: str = VERSION,
    tags: Sequence[str] = ("cp311-cp311", "cp312-abi3"),
    program: str = "",
) -> Path:
    """Write pophood's own wheels into a folder, and return it."""
    needs = [
        "everywhere",
        "compiled",
        'only-old; python_version < "3.12"',
        'only-new; python_version >= "3.13"',
        'torch<2.14,>=2.10; extra == "train"',
    ]
    for tag in tags:
        wheel(folder, "pophood", version, f"{tag}-{LINUX}", needs, program=program)
    return folder


class QuickPip:
    """Stands in for pip where a test makes many kits: resolves and fetches from a folder, in this process.

    As pip, it evaluates markers as the Python that runs it.
    """

    def __init__(self, index: Path) -> None:
        self.index = index
        self.fetched: list[str] = []

    def resolve(self, target: Target, wanted: Sequence[str], scratch: Path) -> dict[str, dict[str, Any]]:
        """Do what `packages._resolve` does."""
        found: dict[str, dict[str, Any]] = {}
        queue = [Requirement(text) for text in wanted]
        while queue:
            requirement = queue.pop()
            name = canonicalize_name(requirement.name)
            path = self._path(target, requirement)
            needs = [Requirement(text) for text in _needs(path)]
            extras = requirement.extras or {""}
            queue += [
                r for r in needs if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)
            ]
            hashes = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            source = {"url": path.as_uri(), "archive_info": {"hashes": hashes}}
            metadata = {"name": name, "requires_dist": _needs(path)}
            found[name] = {"metadata": metadata, "download_info": source}
        return found

    def fetch(self, target: Target, wanted: LockedWheel, folder: Path) -> Path:
        """Do what `packages.fetch_wheel` does."""
        self.fetched.append(wanted.name)
        return Path(shutil.copy(self.index / wanted.file, folder))

    def _path(self, target: Target, requirement: Requirement) -> Path:
        if requirement.url:
            return Path(unquote(urlsplit(requirement.url).path))
        name = canonicalize_name(requirement.name)
        paths = [
            (Version(version), path)
            for path in self.index.glob("*.whl")
            for project, version, _ in [wheel_name(path)]
            if project == name and requirement.specifier.contains(version)
            if fits(path, target.platform, target.python)
        ]
        if not paths:
            raise NotFound(f"pip found no set of wheels with {requirement}")
        return max(paths)[1]


def _needs(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(member).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
