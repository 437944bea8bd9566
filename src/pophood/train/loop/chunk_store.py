"""Rows of numbers kept on the disk, in chunks with a checksum each: written once, read in any order.

No torch.

trunk/train.facts   JSON: the key of what the rows are made from
trunk/train.marks   8 bytes a chunk: 0, or 2^32 + the CRC-32 of its rows
trunk/train.rows    the chunks at their places; nothing is there before it is written

A mark is written after its rows. Whether the rows reached the disk before a power cut, the checksum tells: a
process compares it when it first reads a chunk that it did not write. Several processes may write, each its
chunks. What is damaged is absent, and made again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pophood.system import atomic_write, disk_errors, file_lock, free_disk
from pophood.train.settings import TrainSettings

FOLDER = "trunk"  # within a run's
MOST = 20.0  # GiB on the disk, at most half of what is free
VERSION = 1
Bytes = NDArray[np.uint8]
_MARKED = 1 << 32


class KeptRows:
    """The rows of one folder and name. What goes wrong on the disk is said and never raised after opening."""

    def __init__(
        self,
        folder: Path,
        name: str,
        key: str,
        starts: NDArray[np.int64],
        row_bytes: int,
        announce: Callable[[str], object],
    ) -> None:
        """Chunk c has the rows starts[c]..starts[c + 1]. Rows of another key are thrown away, aloud.

        Raises PophoodError where the folder cannot be written.
        """
        self.folder, self.name, self.full = folder, name, False
        self._starts, self._row_bytes, self._announce = starts, row_bytes, announce
        self._good = np.zeros(len(starts) - 1, np.bool_)  # written or checked by this process
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(folder / f"{name}.lock"):
                self._prepare(key)
            self._marks: BinaryIO = (folder / f"{name}.marks").open("r+b", buffering=0)
            self._rows: BinaryIO = (folder / f"{name}.rows").open("r+b", buffering=0)

    def has(self, chunk: int) -> bool:
        """Whether a chunk is there and whole."""
        if not self._good[chunk] and (mark := self._mark(chunk)):
            self._good[chunk] = self._sound(chunk, mark)
        return bool(self._good[chunk])

    def read(self, row: int, count: int) -> Bytes | None:
        """`count` rows from number `row` on, [count, bytes of a row]; None where the disk gives fewer."""
        found = np.empty((count, self._row_bytes), np.uint8)
        view, at = found.data.cast("B"), 0
        try:
            self._rows.seek(row * self._row_bytes)
            while at < len(view):
                more = self._rows.readinto(view[at:])  # type: ignore[attr-defined]
                if not more:
                    return None
                at += more
        except OSError:
            return None
        return found

    def write(self, chunk: int, rows: Bytes) -> None:
        """Keep a chunk; when the disk is full, or fails, say so once and keep no more."""
        if self.full:
            return
        try:
            _put(self._rows, int(self._starts[chunk]) * self._row_bytes, rows.data.cast("B"))
            self._set_mark(chunk, _MARKED | zlib.crc32(rows.data))
        except OSError as error:
            self.full = True
            self._announce(
                f"{self.folder}: no more of the states can be kept ({error.strerror}; free"
                f" {free_disk(self.folder):,} bytes): the run goes on and computes the rest each time"
            )
        else:
            self._good[chunk] = True

    def close(self) -> None:
        """Let go of the files, which stay."""
        for file in (self._rows, self._marks):
            with suppress(OSError):
                file.close()

    # ---- inside ----

    def _prepare(self, key: str) -> None:
        """Files of this key: those that are there, or new ones."""
        facts, size = self.folder / f"{self.name}.facts", 8 * len(self._good)
        try:
            said: Any = json.loads(facts.read_bytes())
            marks, rows = (self.folder / f"{self.name}.{end}" for end in ("marks", "rows"))
            if said == {"version": VERSION, "key": key} and marks.stat().st_size == size and rows.is_file():
                return
            self._announce(f"{facts}: the kept states are of other weights, data or settings: thrown away")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._announce(f"{facts}: the kept states are damaged ({error}): thrown away")
        for end in ("facts", "marks", "rows"):
            (self.folder / f"{self.name}.{end}").unlink(missing_ok=True)
        (self.folder / f"{self.name}.rows").touch()
        (self.folder / f"{self.name}.marks").write_bytes(bytes(size))
        atomic_write(facts, json.dumps({"version": VERSION, "key": key}).encode())

    def _mark(self, chunk: int) -> int:
        try:
            self._marks.seek(8 * chunk)
            return int.from_bytes(self._marks.read(8), "little")
        except OSError:
            return 0

    def _set_mark(self, chunk: int, mark: int) -> None:
        _put(self._marks, 8 * chunk, memoryview(mark.to_bytes(8, "little")))

    def _sound(self, chunk: int, mark: int) -> bool:
        first, end = int(self._starts[chunk]), int(self._starts[chunk + 1])
        rows = self.read(first, end - first)
        if rows is not None and _MARKED | zlib.crc32(rows.data) == mark:
            return True
        self._announce(
            f"{self.folder / self.name}.rows: part {chunk + 1} of {len(self._good)} is damaged: made again"
        )
        with suppress(OSError):
            self._set_mark(chunk, 0)
        return False


def with_limit(settings: TrainSettings, out: Path) -> TrainSettings:
    """With a limit, of those whose method keeps states and who say none; a resumed run then has the same."""
    if settings.method != "last" or settings.cache_limit is not None:
        return settings
    return replace(settings, cache_limit=min(MOST, free_disk(out) / 2 / 2**30))


def _put(file: BinaryIO, at: int, data: memoryview) -> None:
    file.seek(at)
    while data:
        data = data[file.write(data) :]
