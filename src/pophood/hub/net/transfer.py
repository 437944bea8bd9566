"""Fetches one file: resumes where it stopped, checks the hash, and shows the file only if it is right.

`name.part` grows as bytes arrive, so a killed program loses at most the bytes in transit. `name.part.etag`
holds the version that the part belongs to, so that two versions are never mixed. The hash of the whole file
has the last word.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pophood.errors import BadFile, PophoodError
from pophood.hub.net.connect import Unreachable
from pophood.hub.net.listing import Listing, RemoteFile, address_of, check_status
from pophood.hub.net.web import Answer, Web, pause
from pophood.system import atomic_write, disk_errors, rename, replace, sync_file

CHUNK = 1 << 18
MAX_ATTEMPTS = 1000
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

OnBytes = Callable[[int], object]  # called with the bytes of a file so far


def bytes_here(file: RemoteFile, target: Path) -> int:
    """Return how many bytes of a file an earlier attempt left."""
    for path in (target, part_of(target)):
        with suppress(OSError):
            return min(path.stat().st_size, file.size or 0)
    return 0


def part_of(target: Path) -> Path:
    """Return the path at which a file grows while it is fetched."""
    return target.with_name(f"{target.name}.part")


def is_right(file: RemoteFile, path: Path) -> bool:
    """Return whether a file on disk has the listed size and hash."""
    if path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        if file.sha256 is not None:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
        # git's blob hash: SHA-1 over a header and the bytes
        digest = hashlib.sha1(b"blob %d\0" % (file.size or 0), usedforsecurity=False)
        while piece := stream.read(1 << 20):
            digest.update(piece)
        return digest.hexdigest() == file.blob


def complete_from_disk(file: RemoteFile, target: Path) -> bool:
    """Return whether a file is here, complete and with the right hash, so that it need not be fetched.

    A part of full length is checked and moved to `target`. A file with the wrong length or hash is deleted; a
    shorter part stays, to be resumed.
    """
    part = part_of(target)
    for path in (target, part):
        if not path.is_file() or (path == part and path.stat().st_size < (file.size or 0)):
            continue
        if not is_right(file, path):
            path.unlink()
            _etag_of(target).unlink(missing_ok=True)
            continue
        if path == part:
            replace(part, target)
        _forget(target)
        return True
    return False


def has_full_size(file: RemoteFile, target: Path) -> bool:
    """Return whether all bytes of a file, or more, are here, so that their hash must be checked."""
    places = (target, part_of(target))
    return any(place.is_file() and place.stat().st_size >= (file.size or 0) for place in places)


def adopt(file: RemoteFile, older: Path, target: Path) -> None:
    """Reuse a file of the same size, or a part with the same ETag, that an earlier revision left.

    `complete_from_disk` checks the bytes.
    """
    for old, new in ((older, target), (part_of(older), part_of(target))):
        if not old.is_file() or target.exists() or new.exists():
            continue
        if old == older and old.stat().st_size == file.size:
            _link(old, new)
        elif old != older and file.sha256 is not None and _read_etag(older) == f'"{file.sha256}"':
            rename(old, new)
            rename(_etag_of(older), _etag_of(target))


def _link(old: Path, new: Path) -> None:
    """Hard-link a file to a second name, or copy it where the file system has no links."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def fetch_file(web: Web, listing: Listing, file: RemoteFile, target: Path, on_bytes: OnBytes) -> None:
    """Fetch a file so that `target` appears only when it is complete and has the right hash.

    Raises Unreachable after too many attempts without progress (the part is kept for the next time), BadFile
    for wrong bytes (nothing is kept), PophoodError for a full disk.
    """
    if complete_from_disk(file, target):
        on_bytes(file.size or 0)
        return
    for retry in (True, False):
        _fill(web, listing, file, target, on_bytes)
        if is_right(file, part_of(target)):
            break
        _forget(target)
        if not retry:
            raise BadFile(
                f"{listing.repo}: {file.path} arrived twice with a hash that differs from the hub's list: it "
                "was deleted: try again, or from another network"
            )
    with disk_errors(target):
        replace(part_of(target), target)
    _etag_of(target).unlink(missing_ok=True)


def _fill(web: Web, listing: Listing, file: RemoteFile, target: Path, on_bytes: OnBytes) -> None:
    """Fetch bytes until the part has the file's size, over as many connections as that takes."""
    part, wanted = part_of(target), file.size or 0
    furthest, idle = bytes_here(file, target), 0
    for _ in range(MAX_ATTEMPTS):
        try:
            _one_connection(web, listing, file, target, on_bytes)
        except Unreachable:
            here = bytes_here(file, target)
            # A server without Range starts over, which does not count as progress.
            idle = 0 if here > furthest else idle + 1
            furthest = max(furthest, here)
            if idle >= web.attempts:
                raise
            if idle:
                pause(idle - 1)
        if part.exists() and part.stat().st_size == wanted:
            return
    raise Unreachable(f"{listing.repo}: {file.path} was interrupted {MAX_ATTEMPTS} times: try again later")


def _one_connection(web: Web, listing: Listing, file: RemoteFile, target: Path, on_bytes: OnBytes) -> None:
    part, size = part_of(target), file.size or 0
    start = bytes_here(file, target)
    tag = _read_etag(target)
    headers = {}
    if 0 < start < size:
        headers["Range"] = f"bytes={start}-"
        if tag is not None:
            headers["If-Range"] = tag
    with web.get(address_of(listing, file), headers) as answer:
        if answer.status == 416 or (answer.status == 206 and not _continues(answer, start, size, tag)):
            _forget(target)
            raise Unreachable(f"{answer.url}: the file changed on the way: starting again")
        if answer.status != 206:
            check_status(answer, web, listing.repo, f"file {file.path}")
            start = 0
        _check_headers(answer, listing, file, size - start)
        with disk_errors(target, size - start):
            if start == 0:
                _save_etag(answer, target)
            with part.open("r+b" if start else "wb", buffering=0) as stream:
                stream.seek(start)
                stream.truncate()
                done = start
                on_bytes(done)
                while piece := answer.read(CHUNK):
                    done += len(piece)
                    if done > size:
                        break
                    _write(stream.write, piece)
                    on_bytes(done)
                sync_file(stream)
    if done > size:
        _forget(target)
        raise BadFile(f"{listing.repo}: {file.path}: more bytes arrive than the {size:,} that the hub lists")
    if done < size:
        raise Unreachable(
            f"{answer.url}: the connection broke at {done:,} of {size:,} bytes: pull again to resume there"
        )


def _write(write: Callable[[bytes], int | None], piece: bytes) -> None:
    """Write all bytes; an unbuffered file may take only some of them (when the disk is almost full)."""
    view = memoryview(piece)
    while view:
        view = view[write(bytes(view)) or 0 :]


def _continues(answer: Answer, start: int, size: int, tag: str | None) -> bool:
    """Return whether a partial answer continues exactly where the part ends, in the same version."""
    match = CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != start or match[3] not in ("*", str(size)):
        return False
    return tag is None or answer.headers.get("etag", tag) == tag


def _check_headers(answer: Answer, listing: Listing, file: RemoteFile, left: int) -> None:
    """Refuse sizes and a commit that contradict the list, before a byte is written."""
    name = f"{listing.repo}: {file.path}"
    length = answer.headers.get("content-length")
    if length is not None and length != str(left):
        raise BadFile(
            f"{name}: the answer has {length[:20]} bytes, wanted {left:,}: is it a proxy's page? try again"
        )
    linked = answer.hub_header("x-linked-size")
    if linked is not None and linked != str(file.size):
        raise BadFile(f"{name}: the hub says {linked[:20]} bytes here, but {file.size} in its list: refused")
    commit = answer.hub_header("x-repo-commit")
    if commit is not None and commit != listing.commit:
        raise PophoodError(
            f"{name}: the hub answers for commit {commit[:40]}, wanted {listing.commit}: refused"
        )


def _etag_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.etag")


def _save_etag(answer: Answer, target: Path) -> None:
    """Save a strong ETag for If-Range; a weak one (W/...) does not promise equal bytes."""
    tag = answer.headers.get("etag", "")
    _etag_of(target).unlink(missing_ok=True)
    if tag.startswith('"') and tag.isascii() and tag.isprintable() and len(tag) < 300:
        atomic_write(_etag_of(target), tag.encode())


def _read_etag(target: Path) -> str | None:
    try:
        return _etag_of(target).read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _forget(target: Path) -> None:
    part_of(target).unlink(missing_ok=True)
    _etag_of(target).unlink(missing_ok=True)
