"""PrefixFiles: a folder with keys and values of prompts, so that long beginnings survive a restart.

A prompt is cut into chunks of 128 tokens, a file each:

    "pophood prefix 2\n" | key, 32 bytes | keys and values | SHA-256 of all that

The key is a chain of hashes, over everything that the bits depend on and over all tokens up to the end of the
chunk; the file's name is its beginning. So a file is found without an index, has one possible length (two
where layers have attention windows: with their keys and values, or without), and holds nothing that has to be
parsed: neither tokens nor text. Whatever differs from that is never used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile, BadInput, PophoodError
from pophood.system.files import rename, unique

MAGIC = b"pophood prefix 2\n"
HASH = 32  # bytes of a SHA-256
CHUNK = 128  # tokens of a file
LIMIT = 2 << 30  # bytes of a folder
PAUSE = 60.0  # seconds without writing after a write has failed
AGAIN = 60.0  # seconds after which a further use of a file is noted
APART = 10_000_000  # nanoseconds by which a token makes a file older: of one prompt the end goes first
_NAME = re.compile(r"[0-9a-f]{40}\.prefix")
_UNFINISHED = re.compile(r"\.[0-9a-f]{40}\.prefix\..+\.tmp")
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """CHUNK tokens from `start` on, and the key of all tokens up to their end."""

    key: bytes
    start: int

    @property
    def end(self) -> int:
        return self.start + CHUNK

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.key.hex()[:40]}.prefix"


class PrefixFiles:
    """The chunks that are stored in a folder, those of other models beside them.

    `identity` names everything that the bits of keys and values depend on but tokens and adapters: weights,
    precision, instruction set. A chunk has `size` bytes of them, `of_windows` of which may be left out.
    `limit` bounds the bytes of the folder; what was used least recently goes first. `say` prints a line.
    Raises PophoodError for a folder that cannot be made, BadInput for one that others can open.

        files = PrefixFiles(Path("cache"), "sha256 auto avx2", 128 * 23_040, say=print)
        first = files.chunks(ids)[0]
    """

    def __init__(
        self,
        folder: Path,
        identity: str,
        size: int,
        limit: int = LIMIT,
        *,
        of_windows: int = 0,
        say: Callable[[str], object],
    ) -> None:
        self.folder, self.limit = folder, limit
        self._root, self._say = hashlib.sha256(identity.encode()).digest(), say
        self._whole = len(MAGIC) + HASH + size + HASH
        self._least = self._whole - of_windows
        self._ignored: set[str] = set()  # names of files that are not what they should be
        self._noted: dict[str, float] = {}  # when the use of a file was noted
        self._paused_until, self._told = 0.0, False
        _make_private(folder)
        self._delete_unfinished()

    @property
    def paused(self) -> bool:
        """True for a minute after a write has failed."""
        return time.monotonic() < self._paused_until

    def chunks(self, ids: Sequence[int], adapters: str = "") -> list[StoredChunk]:
        """Return the whole chunks of a prompt, stored or not; `adapters` names what it is computed with."""
        key = hashlib.sha256(self._root + adapters.encode()).digest()
        tokens = np.array(ids[: len(ids) // CHUNK * CHUNK], "<i4").tobytes()
        chunks = []
        for start in range(0, len(ids) - CHUNK + 1, CHUNK):
            key = hashlib.sha256(key + tokens[4 * start : 4 * (start + CHUNK)]).digest()
            chunks.append(StoredChunk(key, start))
        return chunks

    def has(self, chunk: StoredChunk) -> bool:
        """Return True if there is a file, and nothing is known against it."""
        return chunk.name not in self._ignored and os.path.lexists(self.folder / chunk.name)

    def touch(self, chunk: StoredChunk) -> None:
        """Note that a chunk was used."""
        now = time.monotonic()
        if now - self._noted.get(chunk.name, -AGAIN) >= AGAIN:
            self._noted[chunk.name] = now
            used = time.time_ns() - chunk.start * APART
            with contextlib.suppress(OSError):
                os.utime(self.folder / chunk.name, ns=(used, used), follow_symlinks=False)

    def read(self, chunk: StoredChunk) -> NDArray[np.uint8] | None:
        """Return keys and values, or None: a file that is not right is named in a line, and left alone."""
        path = self.folder / chunk.name
        try:
            content = self._content(path)
            self._check(content, chunk)
        except FileNotFoundError:
            return None
        except (BadFile, OSError) as error:
            why = (error.strerror or "an error") if isinstance(error, OSError) else str(error)
            why = "it is a link" if isinstance(error, OSError) and error.errno == errno.ELOOP else why
            self._ignored.add(chunk.name)
            self._say(f"{path}: not used, and computed anew: {why}")
            return None
        self.touch(chunk)
        return content[len(MAGIC) + HASH : -HASH]

    def write(self, chunk: StoredChunk, data: NDArray[np.uint8]) -> bool:
        """Store keys and values; return False if that failed, which is told once.

        Nothing is synced: the hash finds what a power cut leaves half written.
        """
        if self.paused or self._whole > self.limit:
            return False
        path = self.folder / chunk.name
        temporary = path.with_name(f".{path.name}.{unique()}.tmp")
        try:
            self._trim(self.limit - self._whole)
            with os.fdopen(os.open(temporary, _WRITE, 0o600), "wb") as file:
                beginning = MAGIC + chunk.key
                whole = hashlib.sha256(beginning)
                whole.update(data.data)
                for part in (beginning, data.data, whole.digest()):
                    file.write(part)
            rename(temporary, path)
        except (OSError, PophoodError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            self._paused_until = time.monotonic() + PAUSE
            if not self._told:
                why = error.strerror if isinstance(error, OSError) else str(error)
                self._say(f"{self.folder}: prefixes cannot be stored ({why}): the server goes on without")
            self._told = True
            return False
        self._noted.pop(chunk.name, None)
        self.touch(chunk)
        self._ignored.discard(chunk.name)
        return True

    def count(self) -> tuple[int, int]:
        """Return the number of files in the folder, of whatever model, and their bytes."""
        sizes = [status.st_size for _, status in self._stored()]
        return len(sizes), sum(sizes)

    def _content(self, path: Path) -> NDArray[np.uint8]:
        """Read a file that only this user can write. Raises BadFile for anything else, OSError."""
        descriptor = os.open(path, _READ)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadFile("it is no regular file")
            if sys.platform != "win32" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
                raise BadFile("other users could have written it")
            size = status.st_size
            if size not in (self._whole, self._least):
                raise BadFile(f"it has {size:,} bytes, wanted {self._whole:,}")
            content = np.empty(size, np.uint8)
            done = 0
            while done < size and (n := file.readinto(content.data[done:])):
                done += n
        if done < size:
            raise BadFile(f"it ended after {done:,} bytes")
        return content

    def _check(self, content: NDArray[np.uint8], chunk: StoredChunk) -> None:
        """Raise BadFile unless this is a file of this format, of this prefix, and undamaged."""
        if content[: len(MAGIC)].tobytes() != MAGIC:
            raise BadFile("it is no stored prefix of this version")
        if content[len(MAGIC) : len(MAGIC) + HASH].tobytes() != chunk.key:
            raise BadFile("it belongs to another prompt or model")
        if hashlib.sha256(content[:-HASH].data).digest() != content[-HASH:].tobytes():
            raise BadFile("its hash is wrong: it is damaged")

    def _stored(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)

    def _trim(self, limit: int) -> None:
        """Delete the files that were used least recently until the rest has at most `limit` bytes."""
        stored = list(self._stored())
        total = sum(status.st_size for _, status in stored)
        for path, status in sorted(stored, key=lambda one: one[1].st_mtime_ns):
            if total <= limit:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size

    def _delete_unfinished(self) -> None:
        """Delete what a process that was killed left half written, but not what another one writes now."""
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > PAUSE
                if _UNFINISHED.fullmatch(entry.name) and old:
                    Path(entry.path).unlink()


def _make_private(folder: Path) -> None:
    """Make a folder that this user alone can open, or check one that is there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise PophoodError(
            f"{folder}: cannot be made ({error.strerror}): name another folder for the cache"
        ) from None
    if sys.platform != "win32":
        if status.st_uid != os.geteuid():
            raise BadInput(f"{folder}: belongs to another user: name a folder of your own for the cache")
        if status.st_mode & 0o077:
            raise BadInput(
                f"{folder}: other users can open it (mode {status.st_mode & 0o777:o}), and what the cache "
                f"keeps there is private: chmod 700 {folder}, or name a folder that does not exist yet"
            )
