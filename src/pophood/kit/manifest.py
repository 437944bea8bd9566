"""The parts of a kit: its layout, `kit.json` about it, and `SHA256SUMS` with every file.

    OUT/README.txt  setup.sh  install.py     how to set a laptop up
    OUT/kit.json    SHA256SUMS               what the kit holds; `sha256sum -c SHA256SUMS` checks it too
    OUT/requirements/python-3.12.txt         every package with its version and hash, for each Python
    OUT/wheels/*.whl   OUT/models/NAME/...   OUT/course/talk.ipynb, talk.html
    OUT/.making/                             while it is made: the lock, and files that are not whole yet

SHA256SUMS is written last and deleted first, so a folder with that file is a whole kit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pophood.errors import BadFile, NotFound

KIT, SUMS, MAKING = "kit.json", "SHA256SUMS", ".making"
MOST_BYTES = 1 << 22  # of kit.json and SHA256SUMS
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True, slots=True)
class KitModel:
    """A model of a kit: the name to type, its folder below `models/`, its licence, and its files' hashes."""

    name: str
    folder: str
    licence: str | None
    files: dict[str, str]  # path below the folder -> SHA-256


@dataclass(frozen=True, slots=True)
class KitManifest:
    """The content of `kit.json`."""

    pophood: str  # its version
    platform: str
    glibc: int  # the minor version of glibc 2 that the wheels need
    pythons: tuple[str, ...]
    extras: tuple[str, ...]
    models: tuple[KitModel, ...]
    packages: dict[str, dict[str, str]]  # Python -> package -> version
    installed: dict[str, int]  # Python -> bytes of what its wheels hold, unpacked
    language: str  # of the course
    files: int = 0  # the lines of SHA256SUMS, which a stick may hold half of
    format: int = 1

    def text(self) -> str:
        """Return it as the text of `kit.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_manifest(path: Path) -> KitManifest:
    """Read a `kit.json`; NotFound without it, BadFile for a damaged one or one of a newer pophood."""
    content = _read(path)
    try:
        facts: dict[str, Any] = json.loads(content)
        if facts["format"] != 1:
            raise BadFile(f"{path}: a kit of format {facts['format']!r}; wanted 1: made by a newer pophood?")
        models = tuple(KitModel(**model) for model in facts.pop("models"))
        pythons, extras = tuple(facts.pop("pythons")), tuple(facts.pop("extras"))
        manifest = KitManifest(models=models, pythons=pythons, extras=extras, **facts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadFile(f"{path}: damaged: it does not describe a kit: copy the kit again") from None
    for model in manifest.models:
        if not isinstance(model.files, dict):
            raise BadFile(f"{path}: damaged: it does not describe a kit: copy the kit again")
        for name in (model.folder, *model.files):
            _inside(path, name)
    return manifest


def read_sums(kit: Path) -> dict[str, str]:
    """Read the hashes of a kit's files by path; NotFound for a folder that is no whole kit."""
    path = kit / SUMS
    if not path.is_file() and (kit / MAKING).is_dir():
        raise NotFound(f"{kit}: this kit is not finished: run the `pophood kit` that made it again")
    sums = {}
    for line in _read(path).splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadFile(f"{path}: damaged: a line is not HASH and FILE: copy the kit again")
        _inside(path, found[2])
        sums[found[2]] = found[1]
    if KIT not in sums:
        raise BadFile(f"{path}: damaged: {KIT} is not in it: copy the kit again")
    return sums


def sums_text(sums: dict[str, str]) -> str:
    """Return hashes as the text of SHA256SUMS, in the form that `sha256sum -c` reads."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of all folders in it, in order, without hidden ones."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadFile(f"{path}: damaged: {path.stat().st_size:,} bytes are too many: copy the kit again")
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path.parent}: no kit: {path.name} is missing") from None
    except UnicodeDecodeError:
        raise BadFile(f"{path}: damaged: it is not text: copy the kit again") from None


def _inside(path: Path, name: object) -> None:
    """Refuse a name that leads out of its folder."""
    if not isinstance(name, str) or not name or "\\" in name or not name.isprintable():
        raise BadFile(f"{path}: damaged: {name!r} is no file of a kit: copy the kit again")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts:
        raise BadFile(f"{path}: {name!r} leads out of the kit: copy the kit again")
