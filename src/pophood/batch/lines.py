"""Input lines as they come from a file or a pipe, one at a time, each with its number and a hash.

A file of a million lines is never held in memory, and a pipe is not waited for while there is something to
compute. What a line means is read in `parse.py`.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pophood.errors import BadInput, NotFound
from pophood.plaintext import without_mark
from pophood.system import MISSING

MOST_BYTES = 16 << 20  # of a line; a longer one becomes an error in its place
CHUNK = 1 << 18
HASH_CHARACTERS = 16  # 64 bits: enough to tell a changed line, and short beside its answer


@dataclass(frozen=True, slots=True)
class InputLine:
    """One line without its end.

    `number` counts from 1, blank lines included. `data` is None if it is too long. `digest` is the beginning
    of the line's SHA-256 in hexadecimal digits.
    """

    number: int
    data: bytes | None
    length: int
    digest: str


class LineSource:
    """The lines of an open file or pipe that are not blank. A byte order mark before the first is left out.

    `ended` is true when there are no more.
    """

    def __init__(self, file: BinaryIO, origin: str) -> None:
        """`file` is unbuffered, so that what has arrived is known; `origin` names it in messages."""
        self._file, self._origin = file, origin
        self._waits = not _is_regular(file)
        self._number = 0
        self._bytes = bytearray()  # read, and not yet returned
        self._searched = 0  # of them have no line end
        self._digest, self._dropped = hashlib.sha256(), 0  # of the beginning of a line that is too long
        self.at_end = False  # of the file; lines may be left
        self.ended = False

    def __iter__(self) -> Iterator[InputLine]:
        while (line := self.next()) is not None:
            yield line

    def next(self, *, wait: bool = True) -> InputLine | None:
        """Return the next line; None at the end, or without `wait` if a pipe has none now.

        Raises BadInput if the first line shows that this is no text in UTF-8.
        """
        while not self.ended:
            end = self._bytes.find(b"\n", self._searched)
            if end >= 0:
                line = self._take(end)
                del self._bytes[: end + 1]
                self._searched = 0
            elif self.at_end:
                self.ended = True
                line = self._take(len(self._bytes))
            else:
                if not wait and self._waits and not _has_input(self._file):
                    return None
                self._read()
                continue
            if line is not None:
                return line
        return None

    def _take(self, end: int) -> InputLine | None:
        """Return the line that ends at `end` of what was read; None if it is blank."""
        self._number += 1
        data = bytes(self._bytes[:end])
        digest, dropped = self._digest, self._dropped
        self._digest, self._dropped = hashlib.sha256(), 0
        digest.update(data)
        if not dropped and not data.strip():
            return None
        length = dropped + len(data)
        kept = data if length <= MOST_BYTES else None
        return InputLine(self._number, kept, length, digest.hexdigest()[:HASH_CHARACTERS])

    def _read(self) -> None:
        data: bytes | None = self._file.read(CHUNK)
        if data is None:  # a pipe that does not block
            select.select([self._file], [], [])
            return
        self.at_end = not data
        first = not self._number and not self._bytes and not self._dropped
        self._searched = len(self._bytes)
        self._bytes += without_mark(data, self._origin) if first else data
        if b"\n" not in data and len(self._bytes) > MOST_BYTES:
            self._digest.update(self._bytes)
            self._dropped += len(self._bytes)
            self._bytes.clear()
            self._searched = 0


def open_lines(path: str) -> tuple[BinaryIO, str]:
    """Open a file of requests, or stdin for "-", unbuffered; return it with its name for messages.

    Raises NotFound or BadInput.
    """
    if path == "-":
        return _stdin(), "stdin"
    try:
        return Path(path).open("rb", buffering=0), path
    except FileNotFoundError:
        raise NotFound(f"{path}: {MISSING}; check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _stdin() -> BinaryIO:
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    except io.UnsupportedOperation:  # a stand-in without a descriptor
        return io.BytesIO(sys.stdin.buffer.read())


def count_lines(path: str) -> int | None:
    """Return how many lines a file has, blank ones included; None for a pipe."""
    if path == "-":
        return None
    lines, last = 0, b"\n"
    with Path(path).open("rb", buffering=0) as file:
        if not _is_regular(file):
            return None
        while data := file.read(CHUNK):
            lines += data.count(b"\n")
            last = data[-1:]
    return lines + (last != b"\n")


def _is_regular(file: BinaryIO) -> bool:
    try:
        return file.seekable()
    except (OSError, ValueError):
        return False


def _has_input(file: BinaryIO) -> bool:
    """Return whether a read of a pipe would return at once. Windows cannot tell, and reads."""
    if sys.platform == "win32":
        return True
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError, io.UnsupportedOperation):  # no descriptor: bytes in memory
        return True
