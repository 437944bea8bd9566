"""The model folders: their layout, the provenance of each model, and finding models in them. No network.

A pulled model is a plain folder with the original file names, plus `pophood.json` with its provenance:

    models/openai-community/gpt2/{config.json, model.safetensors, tokenizer.json, ..., pophood.json}
    models/owner/name+file-stem/file.gguf
    models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    models/.incoming/  (being fetched)   models/.locks/   models/.trash/  (being deleted)

Folders whose names start with a dot are never searched, so an incomplete model is not visible.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pophood.errors import BadInput, PophoodError
from pophood.formats.parts import part_of, piece_advice
from pophood.formats.sniff import find_weights, identify, weights_at
from pophood.hub.names import ModelName, is_plain, parse_name
from pophood.system import atomic_write, check_folders, home, model_folders

PROVENANCE = "pophood.json"
WAITING = "another process is fetching it; waiting for it to finish"
MOST_NOTE_BYTES = 1 << 20

Where = Literal["store", "shared", "hf-cache", "path"]
Kind = Literal["safetensors", "gguf"]


@dataclass(frozen=True, slots=True)
class Located:
    """A model on this machine: a folder with safetensors, or a .gguf file."""

    name: str  # the name to type for it
    path: Path
    source: str | None = None  # for display: the repo's address, or the package
    revision: str | None = None  # the commit, where there is one
    licence: str | None = None
    kind: Kind = "safetensors"
    where: Where = "path"


@dataclass(frozen=True, slots=True)
class Provenance:
    """The record that `pull` writes beside a model: where every byte came from."""

    name: str
    source: str
    revision: str | None
    licence: str | None
    files: dict[str, dict[str, int | str]] = field(default_factory=dict)  # name -> size and hash
    note: str | None = None
    format: int = 1

    def write(self, folder: Path) -> None:
        """Write `pophood.json` into a model's folder."""
        content = asdict(self) | {"fetched": datetime.now(UTC).isoformat(timespec="seconds")}
        atomic_write(folder / PROVENANCE, (json.dumps(content, indent=2) + "\n").encode())


def read_provenance(folder: Path) -> Provenance | None:
    """Read the provenance beside a model; None if it is missing or damaged (the model is still listed)."""
    try:
        if not (folder / PROVENANCE).is_file() or (folder / PROVENANCE).stat().st_size > MOST_NOTE_BYTES:
            return None
        content = json.loads((folder / PROVENANCE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != 1:
        return None
    keys = ("name", "source", "revision", "licence", "note")
    texts: dict[str, Any] = {key: content.get(key) for key in keys}
    if not all(value is None or (isinstance(value, str) and value.isprintable()) for value in texts.values()):
        return None
    files = content.get("files")
    texts |= {"name": texts["name"] or folder.name, "source": texts["source"] or ""}
    return Provenance(**texts, files=files if isinstance(files, dict) else {})


def store() -> Path:
    """Return the model folder that pophood writes to."""
    return home() / "models"


def incoming() -> Path:
    """Return the folder for models that are being fetched.

    It is in the store, so the last step is a rename.
    """
    return store() / ".incoming"


def lock_of(name: ModelName) -> Path:
    """Return the lock file that `pull` and `rm` hold for a model."""
    return store() / ".locks" / f"{name.key}.lock"


def model_at(path: Path) -> tuple[Kind, Path] | None:
    """Return the kind and path of a complete model at a path, as identified by `formats.sniff`, or None.

    A model is a GGUF file (the first part of a split one, with all parts present), a folder with config.json
    and all its safetensors, or the only GGUF model in a folder.
    """
    try:
        weights = find_weights(path) if path.is_dir() else path
        kind = identify(weights)
    except PophoodError:
        return None
    if not _all_here(weights, kind):
        return None
    if kind == "gguf":
        part = part_of(weights.name)
        other = part is not None and part.number != 1  # the first part represents the model
        return None if other or piece_advice(weights.name) is not None else ("gguf", weights)
    return ("safetensors", path) if path.is_dir() and (path / "config.json").is_file() else None


def files_of(path: Path) -> list[Path]:
    """Return the files of a GGUF model: the file itself, or all its parts."""
    part = part_of(path.name)
    return [path] if part is None else [path.with_name(name) for name in part.names]


def _all_here(weights: Path, kind: str) -> bool:
    """Return whether all shards or parts are present."""
    if kind != "index":
        return all(file.is_file() for file in files_of(weights))
    try:
        shards = set(json.loads(weights.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False
    return all(isinstance(s, str) and is_plain(s) and (weights.parent / s).is_file() for s in shards)


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except OSError:  # missing, not a folder, or unreadable; `check_folders` has checked the roots
        return []


def find(name: ModelName) -> Located | None:
    """Find a model in the model folders, in their order (not in the Hugging Face cache).

    Raises BadInput for a model folder that cannot be used.
    """
    check_folders()
    for root in model_folders():
        for place in name.places:
            for path in (root / place, root / f"{place}.gguf"):
                model = describe(root, path)
                if model is not None:
                    return replace(model, name=name.text)
    return None


def describe(root: Path, path: Path) -> Located | None:
    """Describe the model at a path below a model folder; None if there is no complete one."""
    model = model_at(path)
    if model is None:
        return None
    kind, file = model
    where: Where = "store" if root == store() else "shared"
    note = read_provenance(path if path.is_dir() else path.parent)
    if note is None:
        place = path.relative_to(root).as_posix()
        known = plain_name(place)
        return Located(known.text if known is not None else place, file, kind=kind, where=where)
    return Located(note.name, file, note.source or None, note.revision, note.licence, kind, where)


def entries() -> Iterator[tuple[Path, Located]]:
    """Yield every model in the model folders, with the folder or file that holds it.

    Raises BadInput for a model folder that cannot be used.
    """
    check_folders()
    for root in model_folders():
        for child in _children(root):
            yield from _entries_at(root, child, depth=2)


def _entries_at(root: Path, path: Path, depth: int) -> Iterator[tuple[Path, Located]]:
    model = describe(root, path)
    if model is not None:
        yield path, model
        return
    for child in _children(path) if depth else []:
        yield from _entries_at(root, child, depth - 1)


def from_path(text: str) -> Located | None:
    """Return the model at a path that the user typed, or None if the path does not exist.

    Raises what `weights_at` raises for a file that is not a model and for a folder with several models, and
    BadInput for safetensors without their config.json.
    """
    path = Path(text).expanduser()
    if not path.exists():
        return None
    path = path.absolute()
    complete = model_at(path)
    kind, file = complete or ("safetensors", path)
    if complete is None:
        weights = weights_at(path)  # raises, with the reason
        kind, file = ("gguf", weights) if identify(weights) == "gguf" else ("safetensors", path)
        if kind == "safetensors" and not (weights.parent / "config.json").is_file():
            raise BadInput(_without_config(text, weights))
    note = read_provenance(file if file.is_dir() else file.parent)
    if note is None:
        return Located(text, file, kind=kind)
    return Located(text, file, note.source or None, note.revision, note.licence, kind)


def _without_config(text: str, weights: Path) -> str:
    folder = weights.parent
    if (folder / "adapter_config.json").is_file():
        return f"{text}: an adapter, not a model: name its base model with -m, and add --adapter {folder}"
    return (
        f"{text}: safetensors without a config.json; wanted it in {folder}: fetch the model's other files "
        "too (`pophood pull` does)"
    )


def size_of(path: Path) -> int:
    """Return the bytes of a model: of a file with all its parts, or of everything in a folder."""
    if path.is_file():
        return sum(file.stat().st_size for file in files_of(path))
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def plain_name(text: str) -> ModelName | None:
    """Parse a name as `parse_name` does, but return None for a text that is not a name."""
    try:
        return parse_name(text)
    except BadInput:
        return None
