"""checkpoint.json, the manifest of a checkpoint: its format, and its check against the folder. No torch.

    {"format": "pophood checkpoint", "version": 1, "serial": 7, "facts": {"step": 120, ...},
     "files": {"trained.safetensors": {"bytes": 1234, "sha256": "..."}, ...}, "check": "..."}

`serial` counts the saves in a folder, so the highest is the newest, whatever its step. `check` is the
SHA-256 of everything else in the file. The file is treated as hostile input: bounds are checked first, and
each kind of contradiction has its own error.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, NotFound, Unsupported, quoted
from pophood.formats.json_file import parse_json

NAME = "checkpoint.json"
FORMAT = "pophood checkpoint"
VERSION = 1
LARGEST = 64 << 20  # bytes of checkpoint.json
READ_BYTES = 8 << 20  # hashed at once
DAMAGED = "the checkpoint is damaged: take another one from its folder"

# Version -> function that turns a manifest of that version into one of the next. There is only version 1.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

_FILE = re.compile(r"[a-z]{1,40}\.safetensors")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Length and SHA-256 of one file of a checkpoint."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The checked contents of checkpoint.json."""

    serial: int
    facts: dict[str, Any]
    files: dict[str, FileFacts]

    @property
    def step(self) -> int:
        """Number of steps before the save."""
        return int(self.facts["step"])

    @property
    def validation_loss(self) -> float | None:
        """The validation loss of these weights; None if it was not measured."""
        value = self.facts.get("validation_loss")
        return float(value) if isinstance(value, int | float) else None

    def encode(self) -> bytes:
        """Return the bytes of checkpoint.json; raises ValueError for facts that JSON cannot hold."""
        fields: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "serial": self.serial,
            "facts": self.facts,
            "files": {name: asdict(file) for name, file in self.files.items()},
        }
        fields["check"] = _check(fields)
        return (json.dumps(fields, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Read checkpoint.json, and compare it with its own hash and with the lengths of the files beside it.

    Raises NotFound if there is none, BadFile if anything is wrong, Unsupported for a later version.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{folder}: no checkpoint ({NAME} is missing): give a folder checkpoint-...") from None
    except OSError as error:
        raise BadFile(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > LARGEST:
        raise BadFile(f"{path}: has more than {LARGEST:,} bytes: {DAMAGED}")
    manifest = _parse(parse_json(data, str(path)), path)
    for name, facts in manifest.files.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise BadFile(f"{folder / name}: {error.strerror}: {DAMAGED}") from None
        if size != facts.bytes:
            raise BadFile(f"{folder / name}: has {size:,} bytes, wanted {facts.bytes:,}: {DAMAGED}")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every file and compare its SHA-256; raises BadFile for a difference."""
    for name, facts in manifest.files.items():
        digest = hashlib.sha256()
        try:
            with (folder / name).open("rb") as file:
                while piece := file.read(READ_BYTES):
                    digest.update(piece)
        except OSError as error:
            raise BadFile(f"{folder / name}: cannot be read ({error.strerror}): {DAMAGED}") from None
        if digest.hexdigest() != facts.sha256:
            raise BadFile(
                f"{folder / name}: its SHA-256 is {digest.hexdigest()[:12]}..., wanted"
                f" {facts.sha256[:12]}...: {DAMAGED}"
            )


def _parse(fields: Any, path: Path) -> Manifest:
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise BadFile(f"{path}: not a checkpoint of pophood (wanted the format {FORMAT!r})")
    version = fields.get("version")
    if type(version) is not int or version < 1:
        raise BadFile(f"{path}: has version {quoted(str(version))}, wanted a number from 1: {DAMAGED}")
    if version > VERSION:
        raise Unsupported(
            f"{path}: has version {version}, written by a later pophood; this one reads up to {VERSION}:"
            " update pophood"
        )
    if fields.pop("check", None) != _check(fields):
        raise BadFile(f"{path}: its contents do not match the SHA-256 in it: {DAMAGED}")
    for old in range(version, VERSION):
        fields = MIGRATIONS[old](fields)
    serial, facts, files = (fields.get(key) for key in ("serial", "facts", "files"))
    if type(serial) is not int or serial < 0:
        raise BadFile(f"{path}: has serial {quoted(str(serial))}, wanted a number from 0: {DAMAGED}")
    if not isinstance(facts, dict) or type(facts.get("step")) is not int or facts["step"] < 0:
        raise BadFile(f"{path}: names no step: {DAMAGED}")
    if not isinstance(files, dict):
        raise BadFile(f"{path}: lists no files: {DAMAGED}")
    return Manifest(serial, facts, {name: _file(name, value, path) for name, value in files.items()})


def _file(name: str, value: object, path: Path) -> FileFacts:
    if not _FILE.fullmatch(name):
        raise BadFile(f"{path}: names the file {quoted(name)}, which no checkpoint has: {DAMAGED}")
    if isinstance(value, dict):
        size, sha256 = value.get("bytes"), value.get("sha256")
        if type(size) is int and size >= 0 and isinstance(sha256, str) and _HASH.fullmatch(sha256):
            return FileFacts(size, sha256)
    raise BadFile(f"{path}: {quoted(name)} has no length and SHA-256: {DAMAGED}")


def _check(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the fields as canonical JSON."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
