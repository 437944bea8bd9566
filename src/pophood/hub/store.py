"""The model folders: what a model on disk looks like, where it came from, and how to find it. No network.

A pulled model is a plain folder that keeps its files' names, plus `pophood.json` with its provenance:

    models/openai-community/gpt2/{config.json, model.safetensors, tokenizer.json, ..., pophood.json}
    models/owner/name+file-stem/file.gguf
    models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    models/.incoming/  (what is being fetched)   models/.locks/   models/.trash/  (what is being deleted)

Folders that start with a dot are never looked into, so what is not whole is not visible.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pophood.errors import BadInput
from pophood.hub.names import ModelName, is_plain, parse_name
from pophood.system import atomic_write, check_folders, home, model_folders

PROVENANCE = "pophood.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

Where = Literal["store", "shared", "hf-cache", "path"]
Kind = Literal["safetensors", "gguf"]


@dataclass(frozen=True, slots=True)
class Located:
    """A model on this machine: a folder with safetensors, or a .gguf file."""

    name: str  # what finds it again when typed
    path: Path
    source: str | None = None  # for people: the repo's address, or the package
    revision: str | None = None  # the commit, where there is one
    licence: str | None = None
    kind: Kind = "safetensors"
    where: Where = "path"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What `pull` writes beside a model: where every byte came from."""

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
    """The provenance beside a model, or None without a readable one: a damaged note hides no model."""
    try:
        content = json.loads((folder / PROVENANCE).read_bytes()[: 1 << 20])
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("format") != 1:
        return None
    words = {key: content.get(key) for key in ("name", "source", "revision", "licence", "note")}
    if not all(value is None or (isinstance(value, str) and value.isprintable()) for value in words.values()):
        return None
    files = content.get("files")
    return Provenance(
        name=words["name"] or folder.name,
        source=words["source"] or "",
        revision=words["revision"],
        licence=words["licence"],
        files=files if isinstance(files, dict) else {},
        note=words["note"],
    )


def store() -> Path:
    """The one model folder that is written to."""
    return home() / "models"


def incoming() -> Path:
    """Where models stay while they are fetched: in the store, so that the last step is a rename."""
    return store() / ".incoming"


def lock_of(name: ModelName) -> Path:
    """The lock file that pull and rm hold for a model."""
    return store() / ".locks" / f"{name.places[0].replace('/', '--')}.lock"


def model_at(path: Path) -> tuple[Kind, Path] | None:
    """The whole model at a place: a .gguf file, a folder with all its safetensors, or the one GGUF in it."""
    if path.is_file():
        return ("gguf", path) if path.suffix == ".gguf" else None
    if (path / "config.json").is_file() and _has_weights(path):
        return "safetensors", path
    ggufs = _ggufs(path)
    return ("gguf", ggufs[0]) if len(ggufs) == 1 else None


def _has_weights(folder: Path) -> bool:
    if (folder / WEIGHTS).is_file():
        return True
    try:
        shards = set(json.loads((folder / INDEX).read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        found = [child for child in _children(folder) if child.suffix == ".safetensors"]
        return len(found) == 1 and not (folder / INDEX).exists()
    return all(isinstance(s, str) and is_plain(s) and (folder / s).is_file() for s in shards)


def _ggufs(folder: Path) -> list[Path]:
    return [child for child in _children(folder) if child.suffix == ".gguf" and child.is_file()]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except OSError:  # missing, no folder, or another user's; `check_folders` judged the roots themselves
        return []


def find(name: ModelName) -> Located | None:
    """The model in the model folders (not in the Hugging Face cache), first folder first.

    Raises BadInput for a model folder that cannot be used.
    """
    check_folders()
    for root in model_folders():
        for place in name.places:
            for path in (root / place, root / f"{place}.gguf"):
                found = describe(root, path)
                if found is not None:
                    return replace(found, name=name.text)
    return None


def describe(root: Path, path: Path) -> Located | None:
    """What stands at a place below a model folder, or None."""
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
    """Every model of the model folders, with the folder or file that holds it.

    Raises BadInput for a model folder that cannot be used.
    """
    check_folders()
    for root in model_folders():
        for child in _children(root):
            yield from _entries_at(root, child, depth=2)


def _entries_at(root: Path, path: Path, depth: int) -> Iterator[tuple[Path, Located]]:
    found = describe(root, path)
    if found is not None:
        yield path, found
        return
    for child in _children(path) if depth else []:
        yield from _entries_at(root, child, depth - 1)


def from_path(text: str) -> Located | None:
    """The model at a path that the user typed, or None when nothing is there.

    Raises BadInput for a folder with several GGUF files.
    """
    path = Path(text).expanduser()
    if not path.exists():
        return None
    if path.is_dir() and not (path / "config.json").is_file() and len(_ggufs(path)) > 1:
        names = ", ".join(file.name for file in _ggufs(path)[:12])
        raise BadInput(f"{text}: holds several models, wanted one: add a file's name: {names}")
    kind, file = model_at(path.absolute()) or ("safetensors", path.absolute())
    note = read_provenance(file if file.is_dir() else file.parent)
    if note is None:
        return Located(text, file, kind=kind)
    return Located(text, file, note.source or None, note.revision, note.licence, kind)


def size_of(path: Path) -> int:
    """Bytes of a model: of the file, or of everything in its folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def plain_name(text: str) -> ModelName | None:
    """`parse_name`, but None for what is no name."""
    try:
        return parse_name(text)
    except BadInput:
        return None
