"""How a fetched model becomes visible, and a deleted one invisible: one rename each."""

from __future__ import annotations

import shutil
from pathlib import Path

from pophood.hub.store import incoming, store
from pophood.system import disk_errors, fsync_directory, rename, unique


def publish(staging: Path, target: Path) -> None:
    """Put a complete folder in its place, over an older one if there is one.

    Between the two renames the model is missing, never half: after a crash there, `staging` is still
    whole, and the next pull finds every file in it.
    """
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        older = _set_aside(target)
        try:
            rename(staging, target)
        except BaseException:
            if older is not None:
                older.replace(target)
            raise
        fsync_directory(target.parent)
    empty_trash()


def discard(path: Path) -> None:
    """Take a model out of sight in one step, then delete it. A program that has it open keeps its mapping."""
    with disk_errors(path):
        _set_aside(path)
    empty_trash()
    folder = path.parent
    while folder != store() and store() in folder.parents:
        try:
            folder.rmdir()  # an owner's folder without models
        except OSError:
            return
        folder = folder.parent


def _set_aside(path: Path) -> Path | None:
    """Rename what stands at a place into the trash; of a link, only the link goes."""
    if path.is_symlink():
        path.unlink()
        return None
    if not path.exists():
        return None
    trash = store() / ".trash"
    trash.mkdir(parents=True, exist_ok=True)
    doomed = trash / f"{path.name}.{unique()}"
    rename(path, doomed)
    return doomed


def empty_trash() -> None:
    """Delete what an earlier, interrupted deletion may have left too."""
    shutil.rmtree(store() / ".trash", ignore_errors=True)


def clear_incoming(prefix: str, keep: Path | None = None) -> None:
    """Delete half-fetched folders of a model, except one."""
    for folder in incoming().glob(f"{prefix}@*"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
