"""The platforms that a kit can be made for: those that pophood has a wheel for, and was run on.

A platform decides which wheels pip takes, and what environment markers say on a laptop. Others are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from pophood.errors import BadFile, BadInput

COMMON_GLIBC = 28  # wheels for glibc 2.28 and older run on every distribution of the last years
PYTHONS = ((3, 11), (3, 12), (3, 13), (3, 14))  # those that pophood is tested with, as pyproject.toml says
_MANYLINUX = re.compile(r"manylinux_2_(\d+)_\w+")
_OLD_NAMES = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # -> the minor version of glibc 2


@dataclass(frozen=True, slots=True)
class LaptopPlatform:
    """An operating system and a processor, as Python's markers and wheels call them."""

    name: str
    sys_platform: str
    system: str
    machine: str

    def tags(self, glibc: int = COMMON_GLIBC) -> list[str]:
        """Return the platform tags that pip may take, newest first; `glibc` is one more that is allowed."""
        minors = sorted({glibc, *range(5, COMMON_GLIBC + 1)}, reverse=True)
        named = {minor: f"{old}_{self.machine}" for old, minor in _OLD_NAMES.items()}
        return [
            tag
            for minor in minors
            for tag in (f"manylinux_2_{minor}_{self.machine}", named.get(minor))
            if tag
        ]

    def marker_values(self, python: str) -> dict[str, str]:
        """Return what markers see on a laptop with Python `python`, such as "3.12"."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": self.system,
            "platform_version": "",
            "python_full_version": f"{python}.0",
            "python_version": python,
            "sys_platform": self.sys_platform,
        }


# A platform joins when pophood's wheel for it has been installed and used (docs/architecture.md, Platforms).
PLATFORMS = {"linux-x86_64": LaptopPlatform("linux-x86_64", "linux", "Linux", "x86_64")}
WITHOUT_WHEEL = ("linux-aarch64", "macos-arm64", "windows-x86_64")


def platform_named(name: str) -> LaptopPlatform:
    """Return a platform by name; BadInput, with the names there are, for any other."""
    if name in PLATFORMS:
        return PLATFORMS[name]
    known = ", ".join(PLATFORMS)
    if name in WITHOUT_WHEEL:
        raise BadInput(f"{name}: pophood has no wheel for this platform yet: there is {known}")
    raise BadInput(f"{name!r} is not a platform: there is {known}")


def parse_python(text: str) -> tuple[int, int]:
    """Parse the version of a laptop's Python: "3.12" -> (3, 12). BadInput for others than 3.11 and newer."""
    found = re.fullmatch(r"(\d)\.(\d{1,2})", text)
    if found is None:
        raise BadInput(f"--python {text!r} is not a version such as 3.12: give two numbers")
    version = (int(found[1]), int(found[2]))
    if version < PYTHONS[0] or version[0] != 3:
        raise BadInput(f"--python {text}: pophood needs Python 3.11 or newer")
    return version


def wheel_name(file: str | Path) -> tuple[str, str, frozenset[Tag]]:
    """Return the name, the version and the tags in a wheel's file name; BadFile for another name."""
    name = Path(file).name
    try:
        project, version, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename:
        raise BadFile(f"{file}: not the name of a wheel (NAME-VERSION-PYTHON-ABI-PLATFORM.whl)") from None
    return str(project), str(version), tags


def glibc_of(file: str | Path) -> int:
    """Return the minor version of glibc 2 that a wheel needs; 0 for a wheel without compiled parts."""
    minors = []
    for tag in wheel_name(file)[2]:
        found = _MANYLINUX.fullmatch(tag.platform)
        old = _OLD_NAMES.get(tag.platform.partition("_")[0])
        if found or old or tag.platform == "any":
            minors.append(int(found[1]) if found else old or 0)
    return min(minors, default=0)


def fits(file: str | Path, platform: LaptopPlatform, python: tuple[int, int]) -> bool:
    """Return True if a wheel with this name can be installed on such laptops."""
    tags = wheel_name(file)[2]
    own = set(cpython_tags(python, platforms=platform.tags(glibc_of(file)), warn=False))
    return bool(own & tags) or any(tag.platform == "any" and tag.abi == "none" for tag in tags)


def applies(marker: str, values: dict[str, str], extras: Sequence[str] = ()) -> bool:
    """Return whether an environment marker is true for such a laptop and one of these extras (or none)."""
    parsed = Marker(marker)
    return any(parsed.evaluate(values | {"extra": extra}) for extra in (*extras, ""))
