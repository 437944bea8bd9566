"""Where an export is made before it is seen: a hidden folder beside its place, renamed when it is proved.

So a full disk, a failed proof or a crash leaves what was there before; only between the two renames that
replace an older folder is neither in its place (the older one stands beside it, as `.NAME.….older`). Errors
name the place that was asked for, not the hidden one.
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
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".ggml", ".json", ".zip")  # no names for a folder


def is_file(to: str | os.PathLike[str]) -> bool:
    """Whether an export to this place is one GGUF file, and not a folder."""
    return Path(to).suffix.lower() == ".gguf"


def check_destination(to: str | os.PathLike[str]) -> None:
    """Raise, before any work is done, unless an export can be put at `to`: a new place, or an older export.

    Raises BadInput for what stands there or is missing, PophoodError where the system forbids writing.
    """
    path = Path(to)
    if path.suffix.lower() in _FILES:
        raise BadInput(
            f"{os.fspath(to)}: a file {path.suffix} is not written alone; wanted the name of a new folder"
            " (Hugging Face's layout), or of a file that ends in .gguf"
        )
    check_writable_target(to, folder=not is_file(to))
    refuse_foreign(path, receipt_of(path) if is_file(to) else path / RECEIPT)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden folder to fill; at the end of the block it stands at `target`, after an exception it is gone.

    An older export there (it has a receipt) is replaced; anything else is a BadInput.
    """
    check_destination(target)
    with _hidden(target) as folder:
        yield folder
        with disk_errors(target):
            fsync_directory(folder)
            _swap(folder, target.absolute())


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """A hidden folder to fill; its files then move beside `target`, the one of that name first.

    Another export's file there (it has a receipt, see `receipt_of`) is replaced; anything else is a BadInput.
    """
    check_destination(target)
    with _hidden(target) as folder:
        yield folder
        with disk_errors(target):
            fsync_directory(folder)
            paths = sorted(folder.iterdir(), key=lambda path: (path.name != target.name, path.name))
            _move(paths, target.absolute().parent)


def receipt_of(target: Path) -> Path:
    """The receipt beside an exported file: `model.gguf.receipt.json`."""
    return target.with_name(f"{target.name}.{RECEIPT}")


def refuse_foreign(target: Path, receipt: Path) -> None:
    """Raise BadInput if something stands at `target` that no export of ours wrote."""
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not receipt.is_file():
        raise BadInput(f"{target}: is already there, and no export wrote it: name a place that is free")


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
    """Rename files over those of a folder; if one fails, the older ones (kept by second names) come back."""
    moved: list[tuple[Path, Path, bool]] = []  # (hidden, target, whether something stood there)
    try:
        for path in paths:
            target = place / path.name
            stood = target.exists()
            if stood:
                with suppress(OSError):  # a file system without second names
                    os.link(target, _older(path))
            rename(path, target)
            moved.append((path, target, stood))
        fsync_directory(place)
    except BaseException:
        for path, target, stood in moved:
            if _older(path).exists():
                _older(path).replace(target)
            elif not stood:
                target.unlink()
        raise


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.older")
