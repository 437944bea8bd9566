"""Checkpoints: folders of safetensors and JSON, each complete or absent. Training is elsewhere.

    out/checkpoint-000120/  trained.safetensors    the trained weights
                            optimizer.safetensors  their moments
                            rest.safetensors       random state and everything else that the next step reads
                            checkpoint.json        facts, and length and SHA-256 of every file (manifest.py)

A save writes a folder under a temporary name, syncs every file and the folder, renames it, and syncs the
parent folder. Only then are older checkpoints deleted. So the last checkpoint is whole at any moment, even
after a power cut. The bytes of a file depend on its tensors alone: equal hashes mean equal weights and
moments. Only one run at a time may write into a folder.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pophood.errors import BadFile, BadInput, EngineError, NotFound, PophoodError, Unsupported, quoted
from pophood.formats.safetensors import open_safetensors
from pophood.formats.safetensors_write import DTYPES, Pending, size_of, stream_safetensors
from pophood.formats.tensors import Tensor
from pophood.system import disk_errors, disk_of, free_disk, fsync_directory, rename, sync_file, unique
from pophood.train.checkpoint import manifest as manifests
from pophood.train.checkpoint.manifest import FileFacts, Manifest, read_manifest, verify
from pophood.train.checkpoint.resume import machine

TrainerState = tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]  # tensors and facts
KEEP = 3
MINIMUM = 2  # the newest and the best

_NAME = re.compile(r"checkpoint-\d{6,}(?:-\d+)?")
_UNFINISHED = re.compile(r"\.checkpoint-\d{6,}(?:-\d+)?\.\d+-[0-9a-f]+\.tmp")
_FILE_OF = {"trained": "trained", "mean": "optimizer", "square": "optimizer"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DTYPES: dict[str, torch.dtype] = {  # NumPy has no bfloat16
    name: torch.bfloat16 if name == "BF16" else getattr(torch, dtype.name) for name, dtype in DTYPES.items()
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


# Saving -----------------------------------------------------------------------------------------------


def save(folder: str | Path, state: TrainerState, keep: int = KEEP) -> Path:
    """Write a state (`Trainer.state()`) to `folder`/checkpoint-NNNNNN, and return that path.

    At most `keep` checkpoints remain: the new one, the one with the lowest validation loss, then the
    newest. Raises PophoodError if the disk is full, which leaves the earlier checkpoints as they were;
    EngineError for a value that is not finite; BadInput for `keep` below 2.
    """
    folder, (tensors, facts) = Path(folder), state
    if keep < MINIMUM:
        raise BadInput(f"keep must be at least {MINIMUM} (the newest and the best), got {keep}")
    _refuse_nonfinite(tensors, int(facts["step"]))
    parts = parts_of(tensors)
    needed = sum(map(size_of, parts.values()))
    needed += len(Manifest(0, {**facts, "machine": machine()}, {}).encode()) + 4096
    with _translate_disk_errors(folder, needed):
        _make_folder(folder)
        _clear(folder)
        if needed > (free := free_disk(folder)):
            raise PophoodError(_full(folder, needed, free))
        others = _readable_checkpoints(folder)
        target = _free_name(folder, int(facts["step"]))
        temporary = folder / f".{target.name}.{unique()}.tmp"
        try:
            temporary.mkdir()
            files = {name: _write(temporary / name, part) for name, part in parts.items()}
            serial = 1 + max((other.serial for other in others.values()), default=0)
            new = Manifest(serial, {**facts, "machine": machine()}, files)
            with (temporary / manifests.NAME).open("xb") as file:
                file.write(new.encode())
                sync_file(file)
            fsync_directory(temporary)
            rename(temporary, target)
            fsync_directory(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    _prune(folder, target, new, others, keep)
    return target


def parts_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Pending]]:
    """Group tensors by the file that they belong to; each is converted when it is written."""
    parts: dict[str, dict[str, Pending]] = {}
    for name, tensor in tensors.items():
        file = _FILE_OF.get(name.split(".")[0], "rest")
        parts.setdefault(f"{file}.safetensors", {})[name] = _pending(name, tensor)
    return parts


def _pending(name: str, tensor: torch.Tensor) -> Pending:
    if tensor.dtype not in _NAMES:
        raise BadInput(f"tensor {name} is {tensor.dtype}; checkpoints hold {', '.join(_NAMES.values())}")

    def make() -> NDArray[Any]:
        values = tensor.detach().cpu()
        if values.dtype is torch.bfloat16:  # NumPy has no such type
            values = values.contiguous().view(torch.uint16)
        return values.numpy()

    return Pending(_NAMES[tensor.dtype], tuple(tensor.shape), make)


def _write(path: Path, part: Mapping[str, Pending]) -> FileFacts:
    """Write and sync a file, and return its length and hash."""
    digest = hashlib.sha256()
    with path.open("xb") as file:

        def write(data: bytes | memoryview) -> None:
            digest.update(data)
            file.write(data)

        size = stream_safetensors(write, part)
        sync_file(file)
    return FileFacts(size, digest.hexdigest())


def _refuse_nonfinite(tensors: Mapping[str, torch.Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise EngineError(
                f"step {step}: {name} holds a value that is not finite, so nothing was saved; the last"
                " checkpoint is whole: lower --learning-rate"
            )


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents, and sync each so that a power cut does not lose it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)


def _free_name(folder: Path, step: int) -> Path:
    """Return checkpoint-000120, or checkpoint-000120-2 if a run went back and reaches the step again."""
    path, number = folder / f"checkpoint-{step:06d}", 1
    while path.exists():
        number += 1
        path = folder / f"checkpoint-{step:06d}-{number}"
    return path


def _clear(folder: Path) -> None:
    """Delete the remains of killed saves before free space is measured."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _readable_checkpoints(folder: Path) -> dict[Path, Manifest]:
    """Return the checkpoints whose manifest and file lengths are right; hashes are not compared."""
    checkpoints = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(path.name):
            with suppress(BadFile, NotFound, Unsupported):
                checkpoints[path] = read_manifest(path)
    return checkpoints


def _prune(folder: Path, new: Path, facts: Manifest, others: dict[Path, Manifest], keep: int) -> None:
    """Delete all checkpoints but the new one, the best, and the newest; other folders stay."""
    wanted = [new]
    if (lowest := _best(others | {new: facts})) is not None and lowest != new:
        wanted.append(lowest)
    # A checkpoint of the same step is superseded.
    earlier = [path for path, other in others.items() if other.step != facts.step]
    wanted += sorted(set(earlier) - set(wanted), key=lambda path: -others[path].serial)
    doomed = [path for path in others if path not in wanted[:keep]]
    if not doomed:
        return
    with suppress(OSError, PophoodError):  # the save is done; the next one tries again
        aside = [folder / f".{path.name}.{unique()}.tmp" for path in doomed]
        for path, temporary in zip(doomed, aside, strict=True):
            rename(path, temporary)
        fsync_directory(folder)
        for temporary in aside:
            shutil.rmtree(temporary, ignore_errors=True)


def _best(checkpoints: Mapping[Path, Manifest]) -> Path | None:
    losses = {path: manifest.validation_loss for path, manifest in checkpoints.items()}
    measured = [(loss, checkpoints[path].step, path) for path, loss in losses.items() if loss is not None]
    return min(measured)[2] if measured else None


@contextmanager
def _translate_disk_errors(folder: Path, needed: int) -> Iterator[None]:
    """Say what a full disk means for a checkpoint; other disk errors read as everywhere."""
    try:
        with disk_errors(folder, needed):
            yield
    except PophoodError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_FULL:
            raise PophoodError(_full(folder, needed, free_disk(folder))) from error.__cause__
        raise
    except OSError as error:
        raise PophoodError(
            f"{folder}: the checkpoint could not be written ({error.strerror}); the last one is whole"
        ) from error


def _full(folder: Path, needed: int, free: int) -> str:
    return (
        f"{folder}: the disk is full: needed {needed:,} bytes for a checkpoint, free {free:,} bytes on"
        f" {disk_of(folder)}; the last checkpoint is whole: free some space there, then continue with"
        " --resume"
    )


# Loading ----------------------------------------------------------------------------------------------


class CheckpointTensors(Mapping[str, torch.Tensor]):
    """The tensors of a memory-mapped checkpoint; each is copied into memory when it is looked up."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._tensors[name]
        if tensor.size == 0:
            return torch.empty(tensor.shape, dtype=_DTYPES[tensor.type])
        raw = torch.from_numpy(np.array(tensor.data))
        return raw.view(_DTYPES[tensor.type]).view(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def load(path: str | Path) -> tuple[CheckpointTensors, dict[str, Any]]:
    """Open a checkpoint for `Trainer.restore`, after comparing every file with its SHA-256.

    Raises NotFound if there is none, BadFile if it is damaged, Unsupported if it is of a later version.
    """
    path = Path(path)
    manifest = read_manifest(path)
    verify(path, manifest)
    tensors: dict[str, Tensor] = {}
    for name in manifest.files:
        with open_safetensors(path / name) as file:
            for tensor in file.tensors.values():
                if tensor.type not in _DTYPES or tensor.name in tensors:
                    raise BadFile(
                        f"{path / name}: {quoted(tensor.name)} of {tensor.type} occurs twice or has a type"
                        " that training does not use: take another checkpoint"
                    )
                tensors[tensor.name] = tensor
    return CheckpointTensors(tensors), manifest.facts


def latest(folder: str | Path, announce: Callable[[str], object]) -> Path | None:
    """Return a folder's newest whole checkpoint, after comparing every byte; None if there is none.

    Incomplete and damaged checkpoints are skipped, and `announce` gets a line about each.
    """
    folder = Path(folder)
    readable: dict[Path, Manifest] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name):
            announce(f"{path.name}: skipped, because its save was killed")
        elif _NAME.fullmatch(path.name):
            try:
                readable[path] = read_manifest(path)
            except PophoodError as error:
                announce(f"{error}; skipped")
    for path in sorted(readable, key=lambda path: -readable[path].serial):
        try:
            verify(path, readable[path])
        except BadFile as error:
            announce(f"{error}; trying the one before it")
        else:
            return path
    return None


def best(folder: str | Path) -> Path | None:
    """Return the checkpoint with the lowest validation loss; None if none was measured."""
    return _best(_readable_checkpoints(Path(folder)))
