"""PrefixFiles: a folder with the keys and values of a prefix cache, so that long prompts survive a restart.

One file holds what one node of the radix tree adds to its parent:

    "pophood prefix 1\n" | header: one line of JSON | keys and values | SHA-256 of all that

A file is used only if its checksum, the model's identity and the sizes are right; a damaged one is deleted.
What adapters computed is not stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pophood.errors import BadFile, PophoodError, quoted
from pophood.generate.prefix import PrefixCache
from pophood.model.call import KvState
from pophood.model.engine import Engine
from pophood.system.files import atomic_write

MAGIC = b"pophood prefix 1\n"
SUFFIX = ".prefix"
LEAST = 32  # tokens of a prefix that is worth a file
LONGEST_HEADER = 16 << 20
LIMIT = 2 << 30  # bytes of a folder


@dataclass(frozen=True, slots=True)
class Stored:
    """A file: the digest of its whole prefix and of its parent's ("" for none), its tokens, its size."""

    path: Path
    digest: str
    parent: str
    start: int
    ids: tuple[int, ...]
    size: int
    used: float  # time of its last use


class PrefixFiles:
    """The prefixes that one model stores in a folder; others' files stay, and count for the limit.

    `identity` names everything that the bits of keys and values depend on: the weights, the precision, the
    instruction set. `limit` bounds the bytes of the folder; what was used least recently goes first. Raises
    PophoodError if the folder cannot be made.

        files = PrefixFiles(Path("cache"), "sha256 auto avx2")
        files.load(engine, prefix)
    """

    def __init__(self, folder: Path, identity: str, limit: int = LIMIT) -> None:
        self.folder, self._identity, self._limit = folder, identity, limit
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PophoodError(
                f"{folder}: cannot be made ({error.strerror}): name another folder for the cache"
            ) from None
        self._here: dict[str, Stored] = {}

    def load(self, engine: Engine, prefix: PrefixCache) -> int:
        """Give stored prefixes to a cache, as many as it holds; return the number of tokens that it has.

        Damaged files, and those whose beginning is gone, are deleted.
        """
        found = [one for path in self._paths() if (one := self._checked(path)) is not None]
        children: dict[str, list[Stored]] = {}
        for stored in sorted(found, key=lambda one: one.used):
            children.setdefault(stored.parent, []).append(stored)
        reached: set[str] = set()
        for root in children.get("", []):
            self._load_below(engine, prefix, root, None, (), children, reached)
        for stored in found:
            if stored.digest not in reached:
                self._delete(stored.path)
        return sum(span.end - span.start for span in prefix.spans())

    def save(self, engine: Engine, prefix: PrefixCache) -> int:
        """Store what a cache holds and the folder does not; return the number of files that were written."""
        written = 0
        for span in prefix.spans():
            if span.adapters or span.end < LEAST:
                continue
            path = self.folder / f"{self._digest(span.ids)}{SUFFIX}"
            if path.exists():
                with contextlib.suppress(OSError):
                    os.utime(path)
                continue
            parent = span.ids[: span.start] if span.start >= LEAST else ()
            start = len(parent)
            state = engine.export_kv(span.sequence, first=start)
            header = {
                "identity": self._identity,
                "geometry": state.geometry,
                "parent": self._digest(parent) if parent else "",
                "start": start,
                "ids": list(span.ids[start:]),
                "bytes": state.data.nbytes,
            }
            content = MAGIC + json.dumps(header).encode() + b"\n" + state.data.tobytes()
            atomic_write(path, content + hashlib.sha256(content).digest())
            path.chmod(0o600)
            written += 1
        self._trim()
        return written

    def _load_below(
        self,
        engine: Engine,
        prefix: PrefixCache,
        stored: Stored,
        base: int | None,
        before: tuple[int, ...],
        children: dict[str, list[Stored]],
        reached: set[str],
    ) -> None:
        """Load a file and those that continue it; `base` is the sequence of its parent."""
        ids = (*before, *stored.ids)
        below = children.get(stored.digest, [])
        reached.add(stored.digest)
        if len(ids) > engine.context:  # of an engine with a longer window, whose files stay
            for child in below:
                self._load_below(engine, prefix, child, base, ids, children, reached)
            return
        sequence = engine.new_sequence(()) if base is None else engine.fork(base)
        try:
            if stored.digest != self._digest(ids):
                raise BadFile(f"{stored.path}: its tokens are not those that its name tells")
            engine.append_kv(sequence, self._read(stored.path))
            for child in below:
                self._load_below(engine, prefix, child, sequence, ids, children, reached)
            prefix.keep(engine.fork(sequence), ids)
        except (PophoodError, OSError):
            self._delete(stored.path)
        finally:
            engine.drop(sequence)

    def _digest(self, ids: Sequence[int]) -> str:
        whole = hashlib.sha256(self._identity.encode() + b"\0")
        whole.update(np.array(ids, "<i4").tobytes())
        return whole.hexdigest()[:40]

    def _paths(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from sorted(self.folder.glob(f"*{SUFFIX}"))

    def _checked(self, path: Path) -> Stored | None:
        """Return the description of a file of this model; None for another model's, and for a damaged one."""
        try:
            status = path.stat()
            with path.open("rb") as file:
                header, _ = _header(
                    path, file.read(len(MAGIC)), file.readline(LONGEST_HEADER), status.st_size
                )
        except BadFile:
            self._delete(path)
            return None
        except OSError:
            return None
        if header["identity"] != self._identity:
            return None
        ids = tuple(header["ids"])
        return Stored(
            path, path.stem, header["parent"], header["start"], ids, status.st_size, status.st_mtime
        )

    def _read(self, path: Path) -> KvState:
        content = path.read_bytes()
        end = content.find(b"\n", len(MAGIC)) + 1
        header, size = _header(path, content[: len(MAGIC)], content[len(MAGIC) : end], len(content))
        if hashlib.sha256(content[:-32]).digest() != content[-32:]:
            raise BadFile(f"{path}: the checksum is wrong")
        data = np.frombuffer(content, np.uint8, size, end)
        with contextlib.suppress(OSError):
            os.utime(path)
        return KvState(header["geometry"], len(header["ids"]), data, header["start"])

    def _trim(self) -> None:
        """Delete the files that were used least recently until the rest is within the limit."""
        sizes = []
        for path in self._paths():
            with contextlib.suppress(OSError):
                status = path.stat()
                sizes.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= self._limit:
                break
            self._delete(path)
            total -= size

    def _delete(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()


def _header(path: Path, magic: bytes, line: bytes, size: int) -> tuple[dict[str, Any], int]:
    """Return the header of a file and the bytes of its keys and values. Raises BadFile."""
    try:
        header = json.loads(line)
        ids = header["ids"]
        whole = all(type(i) is int and 0 <= i < 2**40 for i in (header["start"], header["bytes"], *ids))
        strings = all(isinstance(header[name], str) for name in ("identity", "geometry", "parent"))
        right = magic == MAGIC and ids and whole and strings
        right = right and len(magic) + len(line) + header["bytes"] + 32 == size
    except (ValueError, KeyError, TypeError, RecursionError):
        right = False
    if not right:
        raise BadFile(f"{path}: not a stored prefix: {quoted(line[:60].decode(errors='replace'))}")
    return header, header["bytes"]
