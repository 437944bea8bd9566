"""How a fetched model becomes visible, and a deleted one invisible: one rename each."""

from __future__ import annotations

import shutil
from pathlib import Path

from pophood.hub.store import incoming, store
from pophood.system import disk_errors, replace, unique


def publish(staging: Path, target: Path) -> None:
    """Put a complete folder in its place, over an older one if there is one.

    Between the two renames the model is missing, never half: after a crash there, `staging` is still
    whole, and the next pull finds every file in it.
    """
    with disk_errors(target):
        discard(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(staging, target)


def discard(path: Path) -> None:
    """Take a model out of sight in one step, then delete it. A program that has it open keeps its mapping."""
    if not path.exists() and not path.is_symlink():
        return
    trash = store() / ".trash"
    with disk_errors(path):
        if path.is_symlink():
            path.unlink()
            return
        trash.mkdir(parents=True, exist_ok=True)
        doomed = trash / f"{path.name}.{unique()}"
        replace(path, doomed)
        empty_trash()
        _remove_if_empty(path.parent)


def empty_trash() -> None:
    """Delete what an earlier, interrupted deletion may have left too."""
    shutil.rmtree(store() / ".trash", ignore_errors=True)


def clear_incoming(prefix: str, keep: Path | None = None) -> None:
    """Delete half-fetched folders of a model, except one."""
    for folder in incoming().glob(f"{prefix}@*"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    while folder != store() and store() in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
