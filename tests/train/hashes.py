"""Hashes of a run's state, in memory or saved: equal hashes mean equal bits in all that a step reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pophood.formats.safetensors_write import Pending, stream_safetensors
from pophood.train.checkpoint.manifest import read_manifest
from pophood.train.checkpoint.save_load import TrainerState, parts_of


def state_hash(state: TrainerState) -> str:
    """Return the SHA-256 over weights, optimizer and random state."""
    return _hash_of({name: _sha256(part) for name, part in parts_of(state[0]).items()})


def saved_hash(path: str | Path) -> str:
    """Return the `state_hash` of a checkpoint from the hashes in its manifest, which `load` verifies."""
    return _hash_of({name: file.sha256 for name, file in read_manifest(Path(path)).files.items()})


def _hash_of(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(part: Mapping[str, Pending]) -> str:
    digest = hashlib.sha256()
    stream_safetensors(digest.update, part)
    return digest.hexdigest()
