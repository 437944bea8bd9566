"""Makes a fetched model visible, and a deleted one invisible, by one rename each."""

from __future__ import annotations

import shutil
from pathlib import Path

from pophood.hub.store import incoming, store
from pophood.system import disk_errors, fsync_directory, rename, unique


def publish(staging: Path, target: Path) -> None:
    """Move a complete folder into place, replacing an older one.

    Between the two renames the model is missing, but never incomplete: after a crash there, `staging` is
    still complete, and the next pull finds every file in it.
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
    """Hide a model in one step, then delete it. A program that has it open keeps its mapping."""
    with disk_errors(path):
        _set_aside(path)
    empty_trash()
    folder = path.parent
    while folder != store() and store() in folder.parents:
        try:
            folder.rmdir()  # an owner's folder that holds no models any more
        except OSError:
            return
        folder = folder.parent


def _set_aside(path: Path) -> Path | None:
    """Move a file or folder into the trash and return its new path; a link is only removed."""
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
    """Delete the trash, including leftovers of an interrupted deletion."""
    shutil.rmtree(store() / ".trash", ignore_errors=True)


def clear_incoming(prefix: str, keep: Path | None = None) -> None:
    """Delete the partly fetched folders of a model, except `keep`."""
    for folder in incoming().glob(f"{prefix}@*"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
