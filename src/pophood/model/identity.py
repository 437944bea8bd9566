"""Names and hashes that tell models and adapters apart, for whatever must not mix the results of two.

Hashing a whole model would take seconds per gigabyte at every start. The beginning of its files (all of their
metadata, tokenizer and template) and pieces all over the rest do: other weights differ everywhere. The
server's fingerprint, batches that go on after an interruption, and stored prefixes depend on them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pophood import __version__
from pophood.adapters.adapter import Adapter
from pophood.model.lm import LM

HEAD = 16 << 20  # bytes of the beginning of a file that are hashed
PIECES, PIECE = 64, 64 << 10  # of the rest: how many, and bytes of each
MODEL_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model")  # of a folder
DIGITS = 32


def public_name(lm: LM) -> str:
    """Return the name that other programs use: that of the model, or of its folder or file, never a path."""
    return lm.bundle.name if Path(lm.name).absolute() == lm.path.absolute() else lm.name


def weights_digest(path: Path) -> str:
    """Return a hash of a model's file, or of the files in its folder, as hexadecimal digits.

    A copy under another name has the same hash.

        weights_digest(lm.path)
    """
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in MODEL_FILES and one.is_file())
    digest = hashlib.sha256()
    for one in files:
        size = one.stat().st_size
        digest.update(f"{one.name if path.is_dir() else ''} {size}\n".encode())
        with one.open("rb", buffering=0) as file:
            digest.update(file.read(HEAD))
            for number in range(PIECES if size > HEAD else 0):
                file.seek(HEAD + (size - HEAD) * number // PIECES)
                digest.update(file.read(PIECE))
            if size > HEAD:
                file.seek(size - PIECE)
                digest.update(file.read(PIECE))
    return digest.hexdigest()[:DIGITS]


def kv_identity(lm: LM) -> str:
    """Return a text that names all that the bits of a model's keys and values depend on, adapters excepted.

    The build of the engine is among it: another one may round differently.
    """
    engine = lm.engine
    rope = lm.config.rope
    long = rope is not None and rope.long_divisors is not None and engine.context > rope.original_context
    computed = f"{engine.precision} {engine.isa} {engine.kv_geometry}{' long' if long else ''}"
    return f"{__version__} {engine.build} {weights_digest(lm.path)} {computed}"


def adapter_digest(adapter: Adapter) -> str:
    """Return a hash of an adapter's numbers, as hexadecimal digits."""
    digest = hashlib.sha256(repr(float(adapter.scale)).encode())
    for name in sorted(adapter.targets):
        digest.update(name.encode())
        for matrix in adapter.targets[name]:
            digest.update(f"{matrix.shape} {matrix.dtype}".encode())
            digest.update(matrix.tobytes())
    return digest.hexdigest()[:DIGITS]
