"""Staging: an export is made in a hidden folder beside its target, and renamed once it is proved.

So a full disk, a failed proof or a crash leaves an older export in place. Only between the two renames that
replace an older folder is the target missing; the older folder is then beside it, as `.NAME.….older`. Errors
name the target, not the hidden folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pophood.errors import BadInput, PophoodError
from pophood.system import check_writable_target, disk_errors, fsync_directory, rename, unique

RECEIPT = "receipt.json"
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".ggml", ".json", ".zip")  # not names of folders


def is_file(to: str | os.PathLike[str]) -> bool:
    """Return whether an export to this path is a GGUF file, and not a folder."""
    return Path(to).suffix.lower() == ".gguf"


def check_destination(to: str | os.PathLike[str]) -> None:
    """Check, before any work is done, that an export can be written to `to`: a new path, or an older export.

    Raises BadInput if something else is there or a folder is missing, PophoodError if the system forbids
    writing.
    """
    path = Path(to)
    if path.suffix.lower() in _FILES:
        raise BadInput(
            f"{os.fspath(to)}: a file {path.suffix} is not written alone; wanted the name of a new folder"
            " (Hugging Face's layout), or of a file that ends in .gguf"
        )
    check_writable_target(to, folder=not is_file(to))
    refuse_foreign(path)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a hidden folder to fill; at the end of the block it becomes the export. An error deletes it.

    The folder is moved to `target`; for a GGUF file, its files are moved there instead, the file of that name
    first. An older export there (it has a receipt) is replaced; anything else is a BadInput.
    """
    check_destination(target)
    with _hidden(target) as folder:
        yield folder
        with disk_errors(target):
            fsync_directory(folder)
            if is_file(target):
                paths = sorted(folder.iterdir(), key=lambda path: (path.name != target.name, path.name))
                _move(paths, target.absolute().parent)
            else:
                _swap(folder, target.absolute())


def receipt_of(target: Path) -> Path:
    """Return the path of an export's receipt: in its folder, or `model.gguf.receipt.json` beside its file."""
    return target.with_name(f"{target.name}.{RECEIPT}") if is_file(target) else target / RECEIPT


def refuse_foreign(target: Path) -> None:
    """Raise BadInput if `target` exists and was not written by an export."""
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not receipt_of(target).is_file():
        raise BadInput(f"{target}: exists, but is not an export of pophood: name another place")


@contextmanager
def _hidden(target: Path) -> Iterator[Path]:
    place = target.absolute()
    folder = place.with_name(f".{place.name}.{unique()}.tmp")
    with disk_errors(target):
        folder.mkdir(parents=True)
    try:
        yield folder
    except PophoodError as error:
        shown = str(error).replace(str(folder / place.name), str(target)).replace(str(folder), str(target))
        error.args = (shown,)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, target: Path) -> None:
    older = target.with_name(f".{target.name}.{unique()}.older")
    if target.exists():
        rename(target, older)
    try:
        rename(folder, target)
        fsync_directory(target.parent)
    except BaseException:
        if not folder.exists():
            target.replace(folder)
        with suppress(FileNotFoundError):
            older.replace(target)
        raise
    shutil.rmtree(older, ignore_errors=True)


def _move(paths: list[Path], place: Path) -> None:
    """Rename files over those of a folder; if one fails, restore the older ones from hard links."""
    moved: list[tuple[Path, Path, bool]] = []  # (hidden, target, whether the target existed)
    try:
        for path in paths:
            target = place / path.name
            existed = target.exists()
            if existed:
                with suppress(OSError):  # a file system without hard links
                    os.link(target, _older(path))
            rename(path, target)
            moved.append((path, target, existed))
        fsync_directory(place)
    except BaseException:
        for path, target, existed in moved:
            if _older(path).exists():
                _older(path).replace(target)
            elif not existed:
                target.unlink()
        raise


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.older")
