"""Files of a kit: hashed, copied so that a target is whole or absent, and models on their way in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pophood.errors import BadFile, BadInput
from pophood.hub import Located
from pophood.hub.names import parse_name
from pophood.hub.publish import clear_incoming, publish
from pophood.hub.store import PROVENANCE, Provenance, files_of, incoming, lock_of, store
from pophood.kit.manifest import KitManifest, KitModel, files_below
from pophood.system import disk_errors, file_lock, replace, sync_file, unique

PIECE = 1 << 20  # bytes that are read at once
COPIED = frozenset({".safetensors", ".gguf", ".json", ".txt", ".bpe", ".model", ".jinja", ".md", ".html", ""})
OnBytes = Callable[[int, int], object]  # called with the bytes that are done, and all of them
Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class KitDialogue:
    """How work on a kit is shown: lines, and `during(what)`, a block that is called with done and total."""

    say: Say
    detail: Say
    during: Callable[[str], AbstractContextManager[OnBytes]]


class ByteMeter:
    """Counts the bytes of several files, for one progress bar over all of them."""

    def __init__(self, total: int, report: OnBytes) -> None:
        self._done, self._total, self._report = 0, total, report

    def add(self, n: int) -> None:
        """Count bytes that are done."""
        self._done += n
        self._report(self._done, self._total)


def hash_of(path: Path, meter: ByteMeter | None = None) -> str:
    """Return the SHA-256 of a file in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            if meter is not None:
                meter.add(len(piece))
    return digest.hexdigest()


def copy_file(source: Path, target: Path, scratch: Path, meter: ByteMeter | None = None) -> str:
    """Copy a file, unless the same bytes are at `target` already, and return its SHA-256.

    What is copied lies in `scratch`, on the target's disk, until it is whole.
    """
    digest = hash_of(source, meter)
    same_size = target.is_file() and target.stat().st_size == source.stat().st_size
    if same_size and hash_of(target) == digest:
        return digest
    half = scratch / f"copy-{unique()}"
    try:
        with disk_errors(target, source.stat().st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            written = hashlib.sha256()
            with source.open("rb") as reader, half.open("xb") as writer:
                while piece := reader.read(PIECE):
                    written.update(piece)
                    writer.write(piece)
                sync_file(writer)
            if written.hexdigest() != digest:
                raise BadFile(f"{source}: changed while it was copied, or its disk is failing: try again")
            replace(half, target)
    finally:
        half.unlink(missing_ok=True)
    return digest


def files_to_carry(model: Located) -> dict[str, Path]:
    """Return the files of a model by their names in a kit; BadInput for a model named by its path."""
    if model.where == "path":
        raise BadInput(f"--models {model.name}: a kit takes models by name, as `pophood list` shows them")
    if model.path.is_dir():
        inside = [path for path in files_below(model.path) if path.suffix.lower() in COPIED]
        return {path.relative_to(model.path).as_posix(): path for path in inside}
    files = files_of(model.path)
    folder = model.path.parent
    if (folder / PROVENANCE).is_file():  # a folder of this model's own: its terms go with it
        files += [path for path in files_below(folder) if path.suffix.lower() in COPIED - {".gguf"}]
    return {path.name: path for path in files}


def carry_model(model: Located, models: Path, scratch: Path, report: OnBytes) -> KitModel:
    """Copy a model into a kit's `models/`, with a note of where it is from."""
    files = files_to_carry(model)
    folder = parse_name(model.name).places[0]
    meter = ByteMeter(sum(path.stat().st_size for path in files.values()), report)
    hashes = {name: copy_file(path, models / folder / name, scratch, meter) for name, path in files.items()}
    if PROVENANCE not in hashes:  # of another program's cache
        note = Provenance(model.name, model.source or "", model.revision, model.licence)
        note.write(models / folder)
        hashes[PROVENANCE] = hash_of(models / folder / PROVENANCE)
    return KitModel(model.name, folder, model.licence, hashes)


def place_models(kit: Path, manifest: KitManifest, dialogue: KitDialogue) -> None:
    """Copy a kit's models into this machine's store; each becomes visible when it is whole.

    Raises BadFile for a file of the kit that does not have its hash, PophoodError for a full disk.
    """
    for model in manifest.models:
        name, target = parse_name(model.name), store() / model.folder
        if name.places[0] != model.folder:
            raise BadFile(
                f"{kit}: damaged: {model.folder} is not the folder of {model.name}: copy the kit again"
            )
        waiting = f"{model.name}: another process is fetching or deleting it; waiting for it to finish"
        with file_lock(lock_of(name), waiting=lambda words=waiting: dialogue.say(words)):  # type: ignore[misc]
            if model_fault(model) is None:
                dialogue.say(f"{model.name}: already here: {target}")
                continue
            staging = incoming() / f"{name.key}@{unique()}"
            try:
                with dialogue.during(f"copying {model.name}") as report, disk_errors(target):
                    staging.mkdir(parents=True)
                    _copy_checked(kit / "models" / model.folder, model.files, staging, report)
                publish(staging, target)
            finally:
                clear_incoming(name.key)
            dialogue.say(f"{model.name}: {target}")


def _copy_checked(source: Path, files: dict[str, str], staging: Path, report: OnBytes) -> None:
    meter = ByteMeter(sum((source / name).stat().st_size for name in files), report)
    for name, wanted in files.items():
        got = copy_file(source / name, staging / name, staging, meter)
        if got != wanted:
            raise BadFile(
                f"{source / name}: damaged: its SHA-256 is {got}, wanted {wanted}: copy the kit again"
            )


def model_fault(model: KitModel, report: OnBytes = lambda done, total: None) -> str | None:
    """Return what is missing or damaged of a kit's model in this machine's store, or None.

    The note of where it is from is not compared: `pophood pull` writes one of its own.
    """
    files = {
        store() / model.folder / name: wanted for name, wanted in model.files.items() if name != PROVENANCE
    }
    lost = [path for path in files if not path.is_file()]
    if lost:
        return f"{model.name}: {lost[0]} is missing"
    meter = ByteMeter(sum(path.stat().st_size for path in files), report)
    for path, wanted in files.items():
        if hash_of(path, meter) != wanted:
            return f"{model.name}: {path} is damaged"
    return None


def remove_strays(folder: Path, wanted: Sequence[Path], detail: Say) -> None:
    """Delete files of a kit that an earlier run with other options left, and folders without any file."""
    keep = set(wanted)
    for path in list(files_below(folder)) if folder.is_dir() else []:
        if path not in keep:
            detail(f"{path}: left by an earlier run, deleted")
            path.unlink()
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
