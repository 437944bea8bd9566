"""Models in the Hugging Face cache of other programs: read in place, never written or deleted.

<cache>/models--owner--name/refs/main            the commit of "main" when it was fetched
<cache>/models--owner--name/snapshots/<commit>/  the files, as links into blobs/
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from pophood.errors import BadInput
from pophood.formats.parts import one_of_each
from pophood.hub.known_models import CATALOGUE
from pophood.hub.names import ModelName, is_repo, parse_name
from pophood.hub.store import Located, files_of, model_at
from pophood.system import MISSING, folder_fault

COMMIT = re.compile(r"[0-9a-f]{40}")
_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def cache_folder() -> Path:
    """Return the folder of Hugging Face's cache: HF_HUB_CACHE, HF_HOME/hub, or the default."""
    return path_in("HF_HUB_CACHE") or path_in("HUGGINGFACE_HUB_CACHE") or hf_home() / "hub"


def hf_home() -> Path:
    """Return the folder of Hugging Face's cache and login: HF_HOME, or the default."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    return path_in("HF_HOME") or default


def path_in(variable: str) -> Path | None:
    """Return the path in an environment variable, or None if it is not set."""
    value = os.environ.get(variable)
    return Path(os.path.expandvars(value)).expanduser() if value else None


def find_in_cache(name: ModelName) -> Located | None:
    """Return a complete model from the cache: that of main, or else the newest.

    Only files that pophood reads count: a snapshot that holds just `pytorch_model.bin` is not a model here.
    """
    if name.repo is None or not _usable(cache_folder()):
        return None
    older = [name.text] if name.text in CATALOGUE else []  # "gpt2" was its address before 2024
    for repo in (name.repo, *older):
        folder = cache_folder() / f"models--{repo.replace('/', '--')}"
        for snapshot in _snapshots(folder):
            model = _complete_model(snapshot, name)
            if model is not None:
                return model
    return None


def cached_models() -> Iterator[Located]:
    """Yield every model in the cache that pophood could run."""
    folder = cache_folder()
    for child in sorted(folder.glob("models--*")) if _usable(folder) else []:
        repo = child.name.removeprefix("models--").replace("--", "/", 1)
        if repo not in CATALOGUE and not is_repo(repo):
            continue
        name = parse_name(repo)
        model = find_in_cache(name)
        if model is not None:
            yield model
        elif name.repo is not None:
            for snapshot in list(_snapshots(child))[:1]:
                files = one_of_each(sorted(file.name for file in snapshot.glob("*.gguf")))
                names = [ModelName(f"{repo}:{file}", repo, file) for file in files]
                yield from (each for one in names if (each := _complete_model(snapshot, one)) is not None)


def _usable(folder: Path) -> bool:
    """Return whether the cache exists; BadInput if an environment variable names one that cannot be read."""
    fault = folder_fault(folder)
    named = next((variable for variable in _VARIABLES if os.environ.get(variable)), None)
    if fault is not None and fault != MISSING and named is not None:
        raise BadInput(f"{named} points to {folder}, which {fault}: name another folder, or unset it")
    return fault is None


def _snapshots(folder: Path) -> Iterator[Path]:
    """Yield the snapshots to try, best first."""
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / "main").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    if COMMIT.fullmatch(commit) and (snapshots / commit).is_dir():
        yield snapshots / commit
    if snapshots.is_dir():
        others = [path for path in snapshots.iterdir() if COMMIT.fullmatch(path.name) and path.name != commit]
        yield from sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)


def _complete_model(snapshot: Path, name: ModelName) -> Located | None:
    source = f"https://huggingface.co/{name.repo}"
    licence = CATALOGUE[name.text].licence if name.text in CATALOGUE else None
    if name.file is not None:
        path = snapshot / name.file
        if not all(file.is_file() for file in files_of(path)):
            return None
        return Located(name.text, path, source, snapshot.name, licence, "gguf", "hf-cache")
    model = model_at(snapshot)
    if model is None:
        return None
    kind, path = model
    if kind == "safetensors" and not any(all((path / f).is_file() for f in files) for files in TOKENIZERS):
        return None
    return Located(name.text, path, source, snapshot.name, licence, kind, "hf-cache")
