"""A chunk store: rows of bytes on disk in chunks with a checksum each, written once and read in any order.

trunk/train.facts   JSON: the key of what the rows were computed from
trunk/train.marks   8 bytes per chunk: 0, or 2^32 + the CRC-32 of its rows
trunk/train.rows    the chunks at fixed offsets; the file is sparse until they are written

A chunk's mark is written after its rows. The checksum shows whether the rows reached the disk before a
power cut; a process verifies it when it first reads a chunk that it did not write. Several processes may
write different chunks. A damaged chunk counts as missing and is computed again. No torch here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pophood.system import atomic_write, disk_errors, file_lock, free_disk

FOLDER = "trunk"  # in the folder of the run
VERSION = 1
Bytes = NDArray[np.uint8]
_WRITTEN = 1 << 32


class ChunkStore:
    """The rows under one name in a folder. After opening, disk errors are announced and never raised."""

    def __init__(
        self,
        folder: Path,
        name: str,
        key: str,
        starts: NDArray[np.int64],
        row_bytes: int,
        announce: Callable[[str], object],
    ) -> None:
        """Open the store; chunk c holds rows starts[c] to starts[c + 1]. Rows of another key are discarded.

        Raises PophoodError if the folder cannot be written.
        """
        self.folder, self.name, self.full = folder, name, False
        self._starts, self._row_bytes, self._announce = starts, row_bytes, announce
        self._good = np.zeros(len(starts) - 1, np.bool_)  # written or verified by this process
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(folder / f"{name}.lock"):
                self._prepare(key)
            self._marks: BinaryIO = (folder / f"{name}.marks").open("r+b", buffering=0)
            self._rows: BinaryIO = (folder / f"{name}.rows").open("r+b", buffering=0)

    def has(self, chunk: int) -> bool:
        """Return whether a chunk is stored and its checksum is right."""
        if not self._good[chunk] and (mark := self._mark(chunk)):
            self._good[chunk] = self._verify(chunk, mark)
        return bool(self._good[chunk])

    def read(self, row: int, count: int) -> Bytes | None:
        """Read `count` rows from number `row` on, [count, bytes of a row]; None if the file is too short."""
        rows = np.empty((count, self._row_bytes), np.uint8)
        view, at = rows.data.cast("B"), 0
        try:
            self._rows.seek(row * self._row_bytes)
            while at < len(view):
                more = self._rows.readinto(view[at:])  # type: ignore[attr-defined]
                if not more:
                    return None
                at += more
        except OSError:
            return None
        return rows

    def write(self, chunk: int, rows: Bytes) -> None:
        """Store a chunk; if the disk is full or fails, announce it once and store nothing more."""
        if self.full:
            return
        try:
            _write_at(self._rows, int(self._starts[chunk]) * self._row_bytes, rows.data.cast("B"))
            self._set_mark(chunk, _WRITTEN | zlib.crc32(rows.data))
        except OSError as error:
            self.full = True
            self._announce(
                f"{self.folder}: cannot cache more hidden states ({error.strerror}; free"
                f" {free_disk(self.folder):,} bytes); the run continues and recomputes the rest each time"
            )
        else:
            self._good[chunk] = True

    def close(self) -> None:
        """Close the files and leave them on disk."""
        for file in (self._rows, self._marks):
            with suppress(OSError):
                file.close()

    # ---- internals ----

    def _prepare(self, key: str) -> None:
        """Keep the files if they have this key and the right sizes; otherwise create new ones."""
        facts, size = self.folder / f"{self.name}.facts", 8 * len(self._good)
        wanted = {"version": VERSION, "key": key}
        try:
            present: Any = json.loads(facts.read_bytes())
            marks, rows = (self.folder / f"{self.name}.{end}" for end in ("marks", "rows"))
            if present == wanted and marks.stat().st_size == size and rows.is_file():
                return
            self._announce(f"{facts}: discarding hidden states cached for other weights, data or settings")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._announce(f"{facts}: discarding the cached hidden states, which are damaged ({error})")
        for end in ("facts", "marks", "rows"):
            (self.folder / f"{self.name}.{end}").unlink(missing_ok=True)
        (self.folder / f"{self.name}.rows").touch()
        (self.folder / f"{self.name}.marks").write_bytes(bytes(size))
        atomic_write(facts, json.dumps(wanted).encode())

    def _mark(self, chunk: int) -> int:
        try:
            self._marks.seek(8 * chunk)
            return int.from_bytes(self._marks.read(8), "little")
        except OSError:
            return 0

    def _set_mark(self, chunk: int, mark: int) -> None:
        _write_at(self._marks, 8 * chunk, memoryview(mark.to_bytes(8, "little")))

    def _verify(self, chunk: int, mark: int) -> bool:
        first, end = int(self._starts[chunk]), int(self._starts[chunk + 1])
        rows = self.read(first, end - first)
        if rows is not None and _WRITTEN | zlib.crc32(rows.data) == mark:
            return True
        self._announce(
            f"{self.folder / self.name}.rows: part {chunk + 1} of {len(self._good)} is damaged; computing it"
            " again"
        )
        with suppress(OSError):
            self._set_mark(chunk, 0)
        return False


def _write_at(file: BinaryIO, at: int, data: memoryview) -> None:
    file.seek(at)
    while data:
        data = data[file.write(data) :]
