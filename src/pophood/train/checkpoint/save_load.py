"""Checkpoints: a folder of safetensors and JSON, whole or not at all, newest first. No training.

    out/checkpoint-000120/  trained.safetensors    what learns
                            optimizer.safetensors  its moments
                            rest.safetensors       random state and whatever else the next step reads
                            checkpoint.json        facts, length and SHA-256 of every file (manifest.py)

A save writes a folder of another name, syncs every file and the folder, renames it, and syncs the place it
stands in; only then older ones go. So at any moment, also that of a power cut, the last checkpoint is whole.
The bytes of a file depend on its tensors alone: equal hashes mean equal weights and moments (`state_hash`).
One run at a time writes into a folder.
"""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pophood.errors import BadFile, BadInput, EngineError, NotFound, PophoodError, Unsupported, quoted
from pophood.formats.safetensors import open_safetensors
from pophood.formats.safetensors_write import Pending, size_of, stream_safetensors, write_safetensors
from pophood.formats.tensors import Tensor
from pophood.system import disk_errors, disk_of, free_disk, fsync_directory, rename, sync_file, unique
from pophood.train.checkpoint import manifest as manifests
from pophood.train.checkpoint.manifest import FileFacts, Manifest, read_manifest, verify
from pophood.train.checkpoint.resume import machine

Facts = dict[str, Any]
State = tuple[Mapping[str, torch.Tensor], Mapping[str, Any]]
KEEP = 3
LEAST = 2  # the newest and the best

_NAME = re.compile(r"checkpoint-\d{6,}(?:-\d+)?")
_UNFINISHED = re.compile(r"\.checkpoint-\d{6,}(?:-\d+)?\.\d+-[0-9a-f]+\.tmp")
_PARTS = {
    "trained": "trained.safetensors",
    "mean": "optimizer.safetensors",
    "square": "optimizer.safetensors",
}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


# Saving -----------------------------------------------------------------------------------------------


def save(folder: str | Path, state: State, keep: int = KEEP) -> Path:
    """Write a state (`Trainer.state()`) to `folder`/checkpoint-NNNNNN; returns where it stands.

    At most `keep` remain: the new one, the one of the lowest validation loss, then the newest. Raises
    PophoodError for a full disk (needed and free bytes; what was there still stands), EngineError for a
    state with a value that is not finite, BadInput for `keep` below 2.
    """
    folder, (tensors, facts) = Path(folder), state
    if keep < LEAST:
        raise BadInput(f"keep must be at least {LEAST} (the newest and the best), got {keep}")
    _refuse_nonfinite(tensors, int(facts["step"]))
    parts = _parts(tensors)
    needed = sum(map(size_of, parts.values()))
    needed += len(Manifest(0, {**facts, "machine": machine()}, {}).encode()) + 4096
    with _told(folder, needed):
        _make_folder(folder)
        _clear(folder)
        if needed > (free := free_disk(folder)):
            raise PophoodError(_full(folder, needed, free))
        others = _whole(folder)
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


def state_hash(state: State) -> str:
    """SHA-256 over weights, optimizer and random state: equal hashes, equal bits. `saved_hash` of a folder.

    >>> state_hash(({"trained.x": torch.zeros(2)}, {}))[:8]
    '41c13df2'
    """
    return _hash_of({name: _sha256(part) for name, part in _parts(state[0]).items()})


def saved_hash(path: str | Path) -> str:
    """The `state_hash` of a checkpoint, from its own list of hashes (`load` compares them with the files)."""
    return _hash_of({name: file.sha256 for name, file in read_manifest(Path(path)).files.items()})


def _hash_of(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(part: Mapping[str, Pending]) -> str:
    digest = hashlib.sha256()
    stream_safetensors(digest.update, part)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, Pending]]:
    """File name -> its tensors, which are converted when their turn comes."""
    parts: dict[str, dict[str, Pending]] = {}
    for name, tensor in tensors.items():
        part = {"trained": "trained", "mean": "optimizer", "square": "optimizer"}.get(
            name.split(".")[0], "rest"
        )
        parts.setdefault(f"{part}.safetensors", {})[name] = _pending(name, tensor)
    return parts


def _pending(name: str, tensor: torch.Tensor) -> Pending:
    if tensor.dtype not in _NAMES:
        raise BadInput(f"tensor {name} is {tensor.dtype}; checkpoints hold {', '.join(_NAMES.values())}")

    def make() -> NDArray[Any]:
        values = tensor.detach().cpu()
        if values.dtype is torch.bfloat16:  # which NumPy does not have
            values = values.contiguous().view(torch.uint16)
        return values.numpy()

    return Pending(_NAMES[tensor.dtype], tuple(tensor.shape), make)


class _Hashed:
    """An open file that takes the SHA-256 of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256, self.name = file, hashlib.sha256(), file.name
        self.flush, self.fileno = file.flush, file.fileno

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def _write(path: Path, part: Mapping[str, Pending]) -> FileFacts:
    with path.open("xb") as file:
        hashed = _Hashed(file)
        size = write_safetensors(cast("BinaryIO", hashed), part)
    return FileFacts(size, hashed.sha256.hexdigest())


def _refuse_nonfinite(tensors: Mapping[str, torch.Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise EngineError(
                f"step {step}: {name} holds a value that is not a finite number; not saved, the last"
                " checkpoint stands: lower --learning-rate"
            )


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents so that a power cut does not lose them again."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_directory(folder.parent)


def _free_name(folder: Path, step: int) -> Path:
    """checkpoint-000120, or checkpoint-000120-2 where a run went back and comes by a second time."""
    path, number = folder / f"checkpoint-{step:06d}", 1
    while path.exists():
        number += 1
        path = folder / f"checkpoint-{step:06d}-{number}"
    return path


def _clear(folder: Path) -> None:
    """Remove what killed saves have left, before room is measured."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _whole(folder: Path) -> dict[Path, Manifest]:
    """Checkpoints whose manifest reads and whose files have the right lengths; hashes are not taken."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if _NAME.fullmatch(path.name):
            with suppress(BadFile, NotFound, Unsupported):
                found[path] = read_manifest(path)
    return found


def _prune(folder: Path, new: Path, facts: Manifest, others: dict[Path, Manifest], keep: int) -> None:
    """Remove all but the new one, the best, and the newest; a folder that is none of ours is left alone."""
    wanted = [new]
    if (lowest := _best(others | {new: facts})) is not None and lowest != new:
        wanted.append(lowest)
    earlier = [path for path, other in others.items() if other.step != facts.step]  # the same: superseded
    wanted += sorted(set(earlier) - set(wanted), key=lambda path: -others[path].serial)
    kept = wanted[:keep]
    going = [path for path in others if path not in kept]
    if not going:
        return
    with suppress(OSError, PophoodError):  # the save is done; the next one tries again
        aside = [folder / f".{path.name}.{unique()}.tmp" for path in going]
        for path, temporary in zip(going, aside, strict=True):
            rename(path, temporary)
        fsync_directory(folder)
        for temporary in aside:
            shutil.rmtree(temporary, ignore_errors=True)


def _best(found: Mapping[Path, Manifest]) -> Path | None:
    losses = {p: m.validation_loss for p, m in found.items()}
    measured = [(loss, found[path].step, path) for path, loss in losses.items() if loss is not None]
    return min(measured)[2] if measured else None


@contextmanager
def _told(folder: Path, needed: int) -> Iterator[None]:
    """A full disk in words that fit here; other errors of the disk as everywhere."""
    try:
        with disk_errors(folder, needed):
            yield
    except PophoodError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL:
            raise PophoodError(_full(folder, needed, free_disk(folder))) from error.__cause__
        raise
    except OSError as error:
        raise PophoodError(
            f"{folder}: the checkpoint could not be written ({error.strerror}); the last one stands"
        ) from error


def _full(folder: Path, needed: int, free: int) -> str:
    return (
        f"{folder}: the disk is full: needed {needed:,} bytes for a checkpoint, free {free:,} bytes on"
        f" {disk_of(folder)}; the last checkpoint stands: free some space there, then go on with --resume"
    )


# Loading ----------------------------------------------------------------------------------------------


class Saved(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint, mapped: each is read when asked for, into memory of its own."""

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


def load(path: str | Path) -> tuple[Saved, Facts]:
    """Open a checkpoint, every byte compared with its SHA-256: what `Trainer.restore` takes.

    Raises NotFound where there is none, BadFile for a damaged one, Unsupported for one of a later version.
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
                        f"{path / name}: {quoted(tensor.name)} of {tensor.type} is there twice, or of no type"
                        " that training uses: the checkpoint lies"
                    )
                tensors[tensor.name] = tensor
    return Saved(tensors), manifest.facts


def latest(folder: str | Path, announce: Callable[[str], object]) -> Path | None:
    """The newest whole checkpoint of a folder, every byte compared; None if there is none.

    What is half-written or damaged is passed over, and `announce` told so in a line each.
    """
    folder = Path(folder)
    found: dict[Path, Manifest] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _UNFINISHED.fullmatch(path.name):
            announce(f"{path.name}: left by a save that was killed; passed over")
        elif _NAME.fullmatch(path.name):
            try:
                found[path] = read_manifest(path)
            except PophoodError as error:
                announce(f"{error}; passed over")
    for path in sorted(found, key=lambda path: -found[path].serial):
        try:
            verify(path, found[path])
        except BadFile as error:
            announce(f"{error}; going back to the one before")
        else:
            return path
    return None


def best(folder: str | Path) -> Path | None:
    """The checkpoint of the lowest validation loss; None where none was measured."""
    return _best(_whole(Path(folder)))
