"""Names and hashes that tell models and adapters apart, and lines that tell a user which one was loaded.

Hashing a whole model would take seconds per gigabyte at every start. The beginning of its files (all of their
metadata, tokenizer and template) and pieces all over the rest do: other weights differ everywhere. The
server's fingerprint, batches that go on after an interruption, and stored prefixes depend on them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pophood import __version__
from pophood.adapters.adapter import Adapter
from pophood.hub.store import PROVENANCE, files_of
from pophood.model.lm import LM
from pophood.phrases import later, phrase
from pophood.system import size_text
from pophood.table import count

HEAD = 16 << 20  # bytes of the beginning of a file that are hashed
PIECES, PIECE = 64, 64 << 10  # of the rest: how many, and bytes of each
MODEL_FILES = (".safetensors", ".json", ".jinja", ".txt", ".model")  # of a folder
DIGITS = 32
WORTH_QUANTISING = 200 << 20  # bytes of weights from which q8 is suggested


def public_name(lm: LM) -> str:
    """Return the name that other programs use: that of the model, or of its folder or file, never a path."""
    return lm.bundle.name if Path(lm.name).absolute() == lm.path.absolute() else lm.name


def load_remarks(lm: LM, precision: str) -> tuple[str, ...]:
    """Return lines for the user about a model that was loaded at a wanted precision."""
    engine = lm.engine
    remarks = [
        phrase("{model} at {precision}, {path}", model=lm.name, precision=lm.how_computed, path=lm.path)
    ]
    if precision == "auto" and engine.precision == "f32" and engine.weight_bytes > WORTH_QUANTISING:
        words = later("--precision q8 would be faster and take less memory, with slightly different numbers")
        remarks.append(phrase(words))
    if why := lm.config.limited_by(engine.context):
        words = later("computed for up to {context:,} tokens, since {why}")
        remarks.append(phrase(words, context=engine.context, why=why))
    for adapter, scale in lm.adapters:
        changed = count(len(adapter.targets), "matrix", "matrices")
        words = later("with the adapter {adapter}, {matrices}, scale {scale:g}")
        remarks.append(phrase(words, adapter=adapter.name, matrices=changed, scale=scale))
    if lm.has_template_of_adapter:
        words = later("conversations use the chat template beside the adapter, not the model's own")
        remarks.append(phrase(words))
    return tuple(remarks)


def load_details(lm: LM) -> tuple[str, ...]:
    """Return lines about how a model is computed, for those who ask for more."""
    engine = lm.engine
    return (
        f"{engine.isa} kernels, {count(engine.threads, 'thread')}, context {engine.context:,}, "
        f"weights {size_text(engine.weight_bytes)}",
    )


def weights_digest(path: Path) -> str:
    """Return a hash of a model's file, or of the files in its folder, as hexadecimal digits.

    A copy under another name, or one that was fetched at another time, has the same hash.

        weights_digest(lm.path)
    """
    digest = hashlib.sha256()
    for one in files_that_count(path):
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


def files_that_count(path: Path) -> list[Path]:
    """Return the files that decide what a model computes: all parts of a file, or those of a folder; sorted.

    The note about where they came from is not one of them: it has the time of the download.
    """
    if not path.is_dir():
        return files_of(path)
    found = (one for one in path.iterdir() if one.suffix in MODEL_FILES and one.name != PROVENANCE)
    return sorted(one for one in found if one.is_file())


def kv_identity(lm: LM) -> str:
    """Return a text that names all that the bits of a model's keys and values depend on, adapters excepted.

    The build of the engine is among it: another one may round differently. So are sizes and times of the
    files, since their digest does not read all of a large one.
    """
    engine = lm.engine
    rope = lm.config.rope
    rotation = rope.chosen(engine.context) if rope is not None else ""
    states = [one.stat() for one in files_that_count(lm.path)]
    stamps = ",".join(f"{state.st_size}:{state.st_mtime_ns // 1_000_000}" for state in states)
    computed = f"{engine.precision} {engine.isa} {engine.kv_geometry} {rotation}".rstrip()
    return f"{__version__} {engine.build} {weights_digest(lm.path)} {stamps} {computed}"


def adapter_digest(adapter: Adapter) -> str:
    """Return a hash of an adapter's numbers, as hexadecimal digits."""
    digest = hashlib.sha256(repr(float(adapter.scale)).encode())
    for name in sorted(adapter.targets):
        digest.update(name.encode())
        for matrix in adapter.targets[name]:
            digest.update(f"{matrix.shape} {matrix.dtype}".encode())
            digest.update(matrix.tobytes())
    return digest.hexdigest()[:DIGITS]
