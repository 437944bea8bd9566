"""The SHA-256 of each file of a model, kept beside its size and time, so that it is computed once.

`model/identity.py` tells models apart by pieces of their files, for one machine's own notes. Machines that
write one file of answers together compare every byte.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pophood.errors import BadFile, PophoodError
from pophood.model.identity import files_that_count
from pophood.system import atomic_write, home

KEPT = "digests.json"  # in pophood's home: path -> [size, time of the last change in ns, digest]


def file_digests(model: Path) -> dict[str, str]:
    """Return the SHA-256 of a model's file, or of those in its folder, by name. Raises BadFile.

    The file of a model may have any name, which is left out: {"": "b179c952..."}.
    """
    known, found = _read(), dict[str, str]()
    before = dict(known)
    for number, path in enumerate(files_that_count(model)):
        try:
            state = path.stat()
            stamp = [state.st_size, state.st_mtime_ns]
            kept = known.get(str(path.absolute()))
            if kept is None or kept[:2] != stamp:
                with path.open("rb") as file:
                    kept = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
                known[str(path.absolute())] = kept
        except OSError as error:
            raise BadFile(f"{path}: cannot be read: {error.strerror}") from None
        found[path.name if model.is_dir() else str(number or "")] = kept[2]
    if known != before:
        with suppress(OSError, PophoodError):  # they are computed again at the next start
            home().mkdir(parents=True, exist_ok=True)
            there = {path: kept for path, kept in known.items() if Path(path).is_file()}
            atomic_write(home() / KEPT, json.dumps(there, indent=1).encode())
    return found


def differing_file(model: str, here: dict[str, str], there: dict[str, str]) -> str | None:
    """Return which file of a model differs between two machines, with both digests; None if none does.

    >>> differing_file("tiny", {"config.json": "ab", "model.safetensors": "cd"}, {"config.json": "ab"})
    'model.safetensors of tiny: sha256 cd here, missing there'
    """
    for name in sorted(here.keys() | there.keys()):
        one, other = here.get(name), there.get(name)
        if one != other:
            file = f"{name} of {model}" if name else model
            ours, theirs = (f"sha256 {one} here" if one else "missing here"), other or "missing"
            return f"{file}: {ours}, {theirs} there"
    return None


def _read() -> dict[str, Any]:
    """Return what is kept; nothing if the file is missing or damaged."""
    with suppress(OSError, ValueError):
        kept = json.loads((home() / KEPT).read_bytes())
        if isinstance(kept, dict) and all(isinstance(one, list) and len(one) == 3 for one in kept.values()):
            return kept
    return {}
