"""Which file is what: find a folder's weights, keep names inside it, refuse all that is not plain data.

A file is judged by its first bytes, not by its name. Pickles are never opened: unpickling runs whatever
program the file holds, which is why `pytorch_model.bin` is refused with the ways out and not converted
here.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal

from pophood.errors import BadFile, BadInput, NotHere, Unsupported
from pophood.formats.tensors import quoted

Kind = Literal["gguf", "safetensors", "index"]

PICKLES = (".bin", ".pt", ".pth", ".pt2", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
FOREIGN = (".h5", ".msgpack", ".onnx", ".tflite", ".pb", ".mlmodel", ".ot", ".nemo")
INDEX = "model.safetensors.index.json"

_ADVICE = (
    "take the .safetensors or .gguf file of the same model, or, where you trust its author, convert it with "
    'transformers: AutoModelForCausalLM.from_pretrained("FOLDER").save_pretrained("NEW")'
)
# First bytes -> what that is, and whether opening it the usual way may run a program from the file.
_MAGICS: tuple[tuple[bytes, str, bool], ...] = (
    (b"\x80\x02", "a Python pickle", True),
    (b"\x80\x03", "a Python pickle", True),
    (b"\x80\x04", "a Python pickle", True),
    (b"\x80\x05", "a Python pickle", True),
    (b"PK\x03\x04", "a zip archive as torch.save and numpy.savez write, with pickles inside", True),
    (b"\x93NUMPY", "a NumPy array file, which may hold pickled objects", True),
    (b"\x89HDF\r\n", "HDF5 (Keras weights)", False),
    (b"lmgg", "a ggml file from before GGUF", False),
    (b"fmgg", "a ggml file from before GGUF", False),
    (b"tjgg", "a ggml file from before GGUF", False),
    (b"algg", "a ggml adapter from before GGUF", False),
    (b"version https://git-lfs", "a Git LFS pointer without the weights (run git lfs pull)", False),
    (b"<!DOCTYPE", "a web page, probably an error that was saved as a model", False),
    (b"<!doctype", "a web page, probably an error that was saved as a model", False),
    (b"<html", "a web page, probably an error that was saved as a model", False),
    (b"\x1f\x8b", "a gzip archive; unpack it first", False),
)


def identify(path: str | PathLike[str]) -> Kind:
    """What a weights file is, by its first bytes: "gguf", "safetensors", or "index" (of safetensors shards).

    Raises Unsupported for pickles and other formats, with the reason and the way out; NotHere without the
    file; BadFile for a folder, an empty file or bytes that are no model.

    Example: `identify("pytorch_model.bin")` raises "... a zip archive as torch.save ... never opens it ...".
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except (FileNotFoundError, NotADirectoryError):
        raise NotHere(f"{path}: there is no such file; check the path, or see `pophood list`") from None
    except OSError as error:
        raise BadFile(f"{path}: cannot be read as a file: {error.strerror}") from None
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
    raise BadFile(f"{path}: begins with {head[:8]!r}: neither GGUF nor safetensors; name such a file")


def _refusal(path: Path, what: str, dangerous: bool) -> Unsupported:
    if dangerous:
        reason = "opening one can run any program that its author put inside, so pophood never opens it"
        return Unsupported(f"{path}: {what}: {reason}; {_ADVICE}")
    return Unsupported(f"{path}: {what}; pophood reads safetensors and GGUF: take such a file of the model")


def find_weights(folder: str | PathLike[str]) -> Path:
    """The weights of a model folder: model.safetensors, its index, else the only .safetensors or .gguf.

    Raises BadInput if several could be meant, Unsupported if there are only pickles or foreign formats
    (none is opened), BadFile if there is nothing, or only a link that leaves the folder.

    Example: `find_weights("models/gpt2")` is `models/gpt2/model.safetensors`.
    """
    folder = Path(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        raise NotHere(f"{folder}: there is no such folder; check the path, or see `pophood list`") from None
    except OSError as error:
        raise BadFile(f"{folder}: cannot be listed: {error.strerror}") from None
    for name in ("model.safetensors", INDEX):
        if name in names:
            return confined(folder, name)
    for suffix in (".safetensors", ".safetensors.index.json", ".gguf"):
        found = [name for name in names if name.lower().endswith(suffix) and not name.startswith("adapter_")]
        if len(found) == 1:
            return confined(folder, found[0])
        if found:
            raise BadInput(
                f"{folder}: holds {len(found)} models ({quoted(', '.join(found))}); name one of them"
            )
    refused = [name for name in names if name.lower().endswith(PICKLES + FOREIGN)]
    if refused:
        dangerous = refused[0].lower().endswith(PICKLES)
        what = "a pickle" if dangerous else "another program's format"
        raise _refusal(folder / refused[0], what, dangerous)
    raise BadFile(
        f"{folder}: holds no .safetensors and no .gguf file: name a model's folder, or fetch it again"
    )


def confined(folder: str | PathLike[str], name: str) -> Path:
    """The path of a file that a model folder names, if it stays inside that folder.

    `name` must be a plain file name. A link may lead to another file of the folder or, in the Hugging Face
    cache, from `snapshots/REVISION/` to the `blobs/` of the same repository; any other way out is a
    BadFile.

    Example: `confined(folder, "../../secret")` raises.
    """
    folder = Path(folder)
    plain = bool(name) and not any(c in '/\\:*?"<>|' or ord(c) < 32 for c in name) and name.strip(". ") != ""
    if not plain:
        raise BadFile(f"{folder}: names the file {quoted(name)}, wanted a plain file name inside the folder")
    path = folder / name
    try:
        real, home = path.resolve(strict=True), folder.resolve(strict=True)
    except FileNotFoundError:
        raise BadFile(f"{folder}: the file {quoted(name)} is missing: fetch the model again") from None
    except (OSError, RuntimeError, ValueError):
        # too long; a loop of links (RuntimeError before Python 3.13); half a surrogate pair
        raise BadFile(f"{folder}: the file {quoted(name)} cannot be reached: fetch the model again") from None
    allowed = [home]
    for part in (home, *home.parents):
        if part.parent.name == "snapshots":
            allowed.append(part.parent.parent / "blobs")
            break
    if not any(real.is_relative_to(place) for place in allowed):
        raise BadFile(
            f"{folder}: {quoted(name)} is a link that leaves the folder; pophood follows links only inside a "
            "model's folder and its Hugging Face cache: put the file itself there, or name it directly"
        )
    return path
