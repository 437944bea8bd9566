"""Identifies files: finds a folder's weights, confines names to it, and refuses everything but plain data.

A file is identified by its first bytes; its name decides only if the bytes say nothing. This is the only
place for that, and the hub uses it too. Pickles are never opened, since unpickling runs any program that the
file holds: `pytorch_model.bin` is refused with advice and not converted.
"""

from __future__ import annotations

import stat
from os import PathLike
from pathlib import Path
from typing import Literal

from pophood.errors import BadFile, BadInput, NotFound, PophoodError, Unsupported, quoted
from pophood.formats.parts import one_of_each, part_of, piece_advice

Kind = Literal["gguf", "safetensors", "index"]

PICKLES = (".bin", ".pt", ".pth", ".pt2", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
FOREIGN = (".h5", ".msgpack", ".onnx", ".tflite", ".pb", ".mlmodel", ".ot", ".nemo")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_INDEX_END = ".safetensors.index.json"
# Prefixes of files beside a model that are not models: adapters, image projectors, the state of a trainer,
# the statistics of a quantiser.
BESIDE = ("adapter_", "mmproj", "optimizer", "imatrix", "training_args", "scheduler", "rng_state")
_NO_WEIGHTS = (".json", ".jsonl", ".txt", ".md", ".jinja", ".model", ".py", ".sha256", ".yaml", ".yml")

_CHECK = "check the path and its permissions"
_ADVICE = (
    "use the .safetensors or .gguf file of the same model, or, if you trust its author, convert it with "
    'transformers: AutoModelForCausalLM.from_pretrained("FOLDER").save_pretrained("NEW")'
)
# (possible first bytes, description, whether opening the file in the usual way may run a program from it)
_MAGICS: tuple[tuple[bytes | tuple[bytes, ...], str, bool], ...] = (
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a Python pickle", True),
    (b"PK\x03\x04", "a zip archive as torch.save and numpy.savez write, with pickles inside", True),
    (b"\x93NUMPY", "a NumPy array file, which may hold pickled objects", True),
    (b"\x89HDF\r\n", "HDF5 (Keras weights)", False),
    ((b"lmgg", b"fmgg", b"tjgg"), "a ggml file from before GGUF", False),
    (b"algg", "a ggml adapter from before GGUF", False),
    (b"version https://git-lfs", "a Git LFS pointer without the weights (run git lfs pull)", False),
    (
        (b"<!DOCTYPE", b"<!doctype", b"<html"),
        "a web page, probably an error that was saved as a model",
        False,
    ),
    (b"\x1f\x8b", "a gzip archive; unpack it first", False),
)


def identify(path: str | PathLike[str]) -> Kind:
    """Identify a weights file by its first bytes: "gguf", "safetensors", or "index" (of safetensors shards).

    Raises Unsupported for pickles and other formats, with the reason and an alternative; NotFound without the
    file; BadFile for a folder, a pipe, an empty file or bytes that are not a model.

    Example: `identify("pytorch_model.bin")` raises "... a zip archive as torch.save ... never opens it ...".
    """
    path = Path(path)
    head = _head(path)
    if head[:4] == b"GGUF":
        return "gguf"
    suffix = path.suffix.lower()
    for magic, what, dangerous in _MAGICS:
        if head.startswith(magic):
            raise _refusal(path, what, dangerous)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    if path.name.endswith(".index.json"):
        return "index"
    if suffix in PICKLES:
        raise _refusal(path, f"by its name {suffix} a pickle", True)
    if suffix in FOREIGN:
        raise _refusal(path, f"by its name {suffix} another program's format", False)
    if suffix == ".safetensors":
        return "safetensors"
    if suffix == ".gguf":
        return "gguf"
    begin = f"begins with {head[:8]!r}" if head else "is empty"
    advice = piece_advice(path.name) or "name a GGUF or safetensors file, or a model's folder"
    raise BadFile(f"{path}: {begin}: neither GGUF nor safetensors; {advice}")


def _head(path: Path) -> bytes:
    """Read the first 32 bytes of a regular file; reading from a pipe could block forever."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BadFile(f"{path}: is a pipe, a socket or a device; wanted a file: name the model's file")
        with path.open("rb") as file:
            return file.read(32)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{path}: there is no such file; check the path, or see `pophood list`") from None
    except OSError as error:
        raise BadFile(f"{path}: cannot be read as a file ({error.strerror}): {_CHECK}") from None


def _refusal(path: Path, what: str, dangerous: bool) -> Unsupported:
    if dangerous:
        reason = "opening one can run any program that its author put inside, so pophood never opens it"
        return Unsupported(f"{path}: {what}: {reason}; {_ADVICE}")
    return Unsupported(f"{path}: {what}; pophood reads safetensors and GGUF: use such a file of the model")


def find_weights(folder: str | PathLike[str]) -> Path:
    """Find the weights of a model folder: model.safetensors, its index, or the only model of another name.

    For shards that is their index or the first shard, for a split GGUF file the first part. Raises BadInput
    if there are several models, Unsupported if there are only pickles or foreign formats (which are not
    opened), and BadFile if there is none.

    Example: `find_weights("models/gpt2")` is `models/gpt2/model.safetensors`.
    """
    folder = Path(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{folder}: there is no such folder; check the path, or see `pophood list`") from None
    except OSError as error:
        raise BadFile(f"{folder}: cannot be listed ({error.strerror}): {_CHECK}") from None
    for name in (WEIGHTS, INDEX):
        if name in names:
            return confined(folder, name)
    plain = [name for name in names if name.lower().endswith(".safetensors")]
    indexes = [name for name in names if name.lower().endswith(_INDEX_END)]
    plain = plain or _by_bytes(folder, names, "safetensors")
    for candidates in (plain, indexes, _by_bytes(folder, names, "gguf")):
        models = [name for name in one_of_each(candidates) if not name.lower().startswith(BESIDE)]
        usual = [name for name in models if (part := part_of(name)) is not None and part.stem == "model"]
        models = usual if len(usual) == 1 else models
        if len(models) == 1:
            part = part_of(models[0])
            index = f"{part.stem}{_INDEX_END}" if part is not None else None
            return confined(folder, index if index in names else models[0])
        if models and len(indexes) == 1 and candidates is plain:
            return confined(folder, indexes[0])
        if models:
            raise BadInput(
                f"{folder}: holds {len(models)} models, wanted one: name one of these files, such as "
                f"{folder / models[0]}: {quoted(', '.join(models), 300)[1:-1]}"
            )
    for name in names:
        if name.lower().endswith(PICKLES + FOREIGN):
            identify(folder / name)  # raises Unsupported
    raise BadFile(
        f"{folder}: holds no .safetensors and no .gguf file: name a model's folder, or fetch it again"
    )


def _by_bytes(folder: Path, names: list[str], kind: Kind) -> list[str]:
    """Return the files of a folder that are of a kind by their bytes; unfinished downloads do not count.

    A .gguf file with other bytes that mean nothing counts as GGUF, so that opening it reports the problem.
    """
    matches = []
    for name in names:
        if name.startswith(".") or name.lower().endswith(_NO_WEIGHTS) or piece_advice(name) is not None:
            continue
        try:
            if (folder / name).is_file() and identify(folder / name) == kind:
                matches.append(name)
        except PophoodError:
            continue  # a pickle, another format, or unreadable
    return matches


def weights_at(path: str | PathLike[str]) -> Path:
    """Return the weights file that a path means: in a folder as `find_weights`, for one part the whole model.

    A shard means the index beside it, or else the first shard; a part of a split GGUF file means the first
    part. Raises as `find_weights` and `identify` do.

    Example: `weights_at("m/model-00002-of-00004.safetensors")` is `m/model.safetensors.index.json`.
    """
    path = Path(path)
    if path.is_dir():
        return find_weights(path)
    kind, part = identify(path), part_of(path.name)
    if part is None or kind == "index":
        return path
    index = path.with_name(f"{part.stem}{_INDEX_END}")
    if kind == "safetensors" and index.is_file():
        return index
    first = path.with_name(part.first)
    return first if first.is_file() else path


def confined(folder: str | PathLike[str], name: str) -> Path:
    """Return the path of a file that a model's index names, which must be a plain name inside the folder.

    Links are followed, as for every file of the folder: whoever made the folder on this disk made the link.
    But a name in a *file*, such as an index from the network, must not lead out of the folder. Raises BadFile
    for such a name, and for a file that is missing or unreachable.

    Example: `confined(folder, "../../secret")` raises.
    """
    folder = Path(folder)
    plain = bool(name) and not any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name) and name.strip(". ") != ""
    if not plain:
        raise BadFile(f"{folder}: an index names {quoted(name)}; wanted a plain file name inside the folder")
    path = folder / name
    try:
        path.resolve(strict=True)
    except FileNotFoundError:
        dangling = path.is_symlink()
        what = "is a link to a file that is missing" if dangling else "is missing"
        advice = "mount its disk, or fetch the model again" if dangling else "fetch the model again"
        raise BadFile(f"{folder}: the file {quoted(name)} {what}: {advice}") from None
    except (OSError, RuntimeError, ValueError):
        # too long; a loop of links (RuntimeError before Python 3.13); half a surrogate pair
        raise BadFile(f"{folder}: the file {quoted(name)} cannot be reached: fetch the model again") from None
    return path
