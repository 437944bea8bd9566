"""A fake package index: a folder of wheels like the real ones, with stand-ins for the models in them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pophood.hub.packaged import PACKAGED, PackagedModel, PackagePart


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put_wheel(folder: Path, part: PackagePart, content: bytes) -> Path:
    """Make a wheel named like the real one, with another file in it."""
    folder.mkdir(exist_ok=True)
    name, _, version = part.package.partition("==")
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: nothing-of-this-name\n"
    files = {
        part.member: content,
        f"{info}/METADATA": about.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for path, data in files.items()
    )
    wheel = folder / part.wheel
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
        archive.writestr(f"{info}/RECORD", record)
    return wheel


def standing_in(folder: Path, part: PackagePart, content: bytes) -> PackagePart:
    """Make a stand-in for a wheel; return the part with its sizes and hashes as the right ones."""
    wheel = put_wheel(folder, part, content).read_bytes()
    return replace(
        part,
        wheel_bytes=len(wheel),
        wheel_sha256=digest_of(wheel),
        size=len(content),
        sha256=digest_of(content),
    )


def stand_in(folder: Path, name: str, contents: list[bytes], patch: pytest.MonkeyPatch) -> PackagedModel:
    """Make stand-ins for all wheels of a model, and let pophood take them for the real ones."""
    model = PACKAGED[name]
    parts = (standing_in(folder, *both) for both in zip(model.parts, contents, strict=True))
    terms = model.terms and replace(model.terms, text=standing_in(folder, model.terms.text, b"<html>"))
    whole = b"".join(contents)
    made = replace(model, size=len(whole), sha256=digest_of(whole), parts=tuple(parts), terms=terms)
    patch.setitem(PACKAGED, name, made)
    return made


def use_index(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make pip look for packages in a folder only."""
    folder.mkdir()
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder))
    patch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def in_store(home: Path) -> list[str]:
    """Return the names of the files that a search of the store sees."""
    return sorted(path.name for path in (home / "models").glob("[!.]*/*"))
