"""Is a kit whole, and is a laptop ready for the class? The answer is None, or the one thing to be mended."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from pophood.errors import BadFile, NotFound, PophoodError
from pophood.hub import locate
from pophood.kit.copying import ByteMeter, KitDialogue, hash_of, model_fault
from pophood.kit.manifest import KIT, SUMS, KitManifest, read_manifest, read_sums
from pophood.system import atomic_write, home

COPY, AGAIN = "copy the kit again", "run the kit's setup.sh again"


def kit_fault(kit: Path, dialogue: KitDialogue) -> str | None:
    """Compare every file of a kit's folder with SHA256SUMS: the first missing or damaged one, or None."""
    try:
        sums = read_sums(kit)
        lost = [name for name in sums if not (kit / name).is_file()]
        if lost:
            return f"{kit / lost[0]} is missing: {COPY}"
        with dialogue.during("checking the kit") as report:
            meter = ByteMeter(sum((kit / name).stat().st_size for name in sums), report)
            for name, wanted in sums.items():
                if hash_of(kit / name, meter) != wanted:
                    return f"{kit / name} is damaged: {COPY}"
        if len(sums) != read_manifest(kit / KIT).files:
            return f"{kit / SUMS} is damaged: {COPY}"
    except PophoodError as error:
        return str(error)
    except OSError as error:  # a stick that cannot be read any more
        return f"{error.filename or kit} cannot be read ({error.strerror}): {COPY}"
    return None


def remember(manifest: KitManifest) -> None:
    """Note on this machine which kit it was set up from, for `laptop_fault`."""
    home().mkdir(parents=True, exist_ok=True)
    atomic_write(home() / KIT, manifest.text().encode())


def laptop_manifest() -> KitManifest | None:
    """Return the manifest of the kit that this machine was set up from, or None; BadFile if damaged."""
    try:
        return read_manifest(home() / KIT)
    except NotFound:
        return None


def laptop_fault(manifest: KitManifest, dialogue: KitDialogue) -> str | None:
    """Check this machine against its kit: the first thing that is missing, damaged or idle, or None."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python not in manifest.packages:
        return f"this is Python {python}; the kit is for {', '.join(manifest.pythons)}: {AGAIN}"
    with dialogue.during("checking packages") as report:
        for done, (name, version) in enumerate(manifest.packages[python].items()):
            report(done, len(manifest.packages[python]))
            fault = package_fault(name, version)
            if fault is not None:
                return f"{fault}: {AGAIN}"
    for model in manifest.models:
        with dialogue.during(f"checking {model.name}") as report:
            fault = model_fault(model, report)
        if fault is not None:
            return f"{fault}: {AGAIN}"
    return _first(lambda: _runs(manifest), lambda: _torch(manifest))


def package_fault(name: str, version: str) -> str | None:
    """Return what is missing or damaged of an installed package: every file against its RECORD."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return f"the package {name} {version} is missing"
    if found.version != version:
        return f"the package {name} is {found.version}; the kit has {version}"
    lost = _damaged_file(found)
    return f"{lost} of the package {name} is missing or damaged" if lost else None


def _damaged_file(package: Distribution) -> str | None:
    for file in package.files or ():
        if file.hash is None or file.hash.mode != "sha256":  # RECORD itself, and bytecode
            continue
        try:
            digest = hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()
        except OSError:
            return str(file)
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            return str(file)
    return None


def _runs(manifest: KitManifest) -> str | None:
    """Let the first model compute one token."""
    from pophood.model import lm

    try:
        located = locate(manifest.models[0].name, offline=True)
        lm.load(located).generate("The capital of Spain is", max_tokens=1, temperature=0)
    except (PophoodError, ImportError) as error:
        return f"{manifest.models[0].name} does not run here: {error}"
    return None


def _torch(manifest: KitManifest) -> str | None:
    if "train" not in manifest.extras:
        return None
    from pophood.train.torch_install import import_torch

    try:
        import_torch()
    except (PophoodError, ImportError, OSError) as error:
        return f"torch cannot be imported: {error}: {AGAIN}"
    return None


def _first(*checks: Callable[[], str | None]) -> str | None:
    return next((fault for check in checks if (fault := check()) is not None), None)


def manifest_of(kit: Path) -> KitManifest:
    """Return the manifest of a whole kit; raises NotFound or BadFile for anything else."""
    if KIT not in read_sums(kit):
        raise BadFile(f"{kit}: damaged: {COPY}")
    return read_manifest(kit / KIT)
