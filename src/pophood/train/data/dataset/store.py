"""The store of token ids on disk: written once as a stream, then memory-mapped.

A folder is complete or does not exist:

ids.bin        uint16 or uint32, document after document
trained.bin    the loss mask: one bit per id, least significant bit first
documents.bin  one `DOCUMENT` per document
facts.json     files, counts, bad lines
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile
from pophood.system import disk_errors, fsync_directory, rename, sync_file, unique

DOCUMENT = np.dtype(
    [
        ("start", "<i8"),  # of its ids
        ("end", "<i8"),
        ("first", "<i8"),  # the first id that is learned, or -1
        ("last", "<i8"),  # the last one, or -1
        ("learned", "<i8"),  # the number of learned ids
        ("digest", "<u8"),  # of its words, ignoring spaces and case
        ("group", "<u8"),  # a group stays on one side of the split into training and validation
        ("file", "<u4"),
        ("line", "<u4"),
        ("text", "?"),  # plain text, which is split if it is long; others are cut
    ]
)
_BUFFERED = 4096  # documents to write at once


class StoreWriter:
    """Writes a store: `publish` creates the folder; without it, nothing is left behind."""

    def __init__(self, folder: Path, vocab_size: int, needed: Callable[[], int]) -> None:
        """`needed` estimates the bytes of the whole store, for the message about a full disk."""
        self.folder = folder
        self.tokens = 0
        self.documents = 0
        self._needed = needed
        self._begin()
        self._type = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
        self._bits: NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._rows: list[tuple[object, ...]] = []
        self._temporary = folder.with_name(f".{folder.name}.{unique()}.tmp")
        self._files: dict[str, BinaryIO] = {}

    @contextmanager
    def open(self) -> Iterator[StoreWriter]:
        """Open the files. On exit, all that was not published is removed."""
        try:
            with self._disk_errors():
                self._temporary.mkdir(parents=True)
                for name in ("ids", "trained", "documents"):
                    self._files[name] = (self._temporary / f"{name}.bin").open("xb", buffering=1 << 20)
            yield self
        finally:
            self._remove()

    def _begin(self) -> None:
        self._start, self._first, self._last, self._learned = self.tokens, -1, -1, 0

    def append(self, ids: NDArray[np.int64], trained: NDArray[np.bool_]) -> None:
        """Append ids to the current document, which `end_document` closes."""
        places = np.flatnonzero(trained)
        if len(places):
            self._first = self.tokens + int(places[0]) if self._first < 0 else self._first
            self._last = self.tokens + int(places[-1])
        self._learned += len(places)
        bits = np.concatenate((self._bits, trained))
        whole = len(bits) & ~7
        self._bits = bits[whole:]
        with self._disk_errors():
            self._files["ids"].write(ids.astype(self._type).tobytes())
            self._files["trained"].write(np.packbits(bits[:whole], bitorder="little").tobytes())
        self.tokens += len(ids)

    def end_document(self, file: int, line: int, digest: int, group: int, *, text: bool) -> int:
        """Close the current document, with the fields of DOCUMENT; return its number of tokens."""
        start, end = self._start, self.tokens
        row = (start, end, self._first, self._last, self._learned, digest, group, file, line, text)
        self.documents += 1
        self._rows.append(row)
        if len(self._rows) >= _BUFFERED:
            self._flush()
        self._begin()
        return end - start

    def publish(self, facts: dict[str, Any]) -> None:
        """Sync the files to disk, then rename the folder to its final name."""
        with self._disk_errors():
            self._flush()
            self._files["trained"].write(np.packbits(self._bits, bitorder="little").tobytes())
            facts = {**facts, "tokens": self.tokens, "id_bytes": self._type.itemsize}
            self._files["facts"] = (self._temporary / "facts.json").open("xb")
            self._files["facts"].write(json.dumps(facts, indent=1).encode())
            for file in self._files.values():
                sync_file(file)
                file.close()
            fsync_directory(self._temporary)
            rename(self._temporary, self.folder)
            fsync_directory(self.folder.parent)

    def _flush(self) -> None:
        with self._disk_errors():
            self._files["documents"].write(np.array(self._rows, DOCUMENT).tobytes())
        self._rows.clear()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._remove()  # before the free space is measured for the message
            with disk_errors(self.folder, self._needed()):
                raise

    def _remove(self) -> None:
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


class Store:
    """A store on disk, memory-mapped: only the parts in use take memory."""

    def __init__(self, folder: Path) -> None:
        """Open a store. Raises BadFile if it is damaged."""
        self.folder = folder
        try:
            self.facts: dict[str, Any] = json.loads((folder / "facts.json").read_bytes())
            kind = {2: "<u2", 4: "<u4"}[self.facts["id_bytes"]]
            self.ids: NDArray[Any] = _mapped(folder / "ids.bin", np.dtype(kind))
            self._bits: NDArray[np.uint8] = _mapped(folder / "trained.bin", np.dtype("u1"))
            self.documents: NDArray[Any] = _mapped(folder / "documents.bin", DOCUMENT)
            if len(self.ids) != self.facts["tokens"] or len(self._bits) != (len(self.ids) + 7) // 8:
                raise ValueError("sizes differ")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadFile(f"{folder}: the cached ids are damaged ({error}): delete this folder") from error

    def trained(self, start: int, end: int) -> NDArray[np.bool_]:
        """Return whether each id of start..end is learned."""
        first = start // 8
        bits = np.unpackbits(self._bits[first : (end + 7) // 8], bitorder="little")
        return bits[start - 8 * first : end - 8 * first].astype(np.bool_)

    @property
    def nbytes(self) -> int:
        """The size of the folder's files in bytes."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, "r")
