"""Bytes of a file as lines of text, each numbered, bounded and checked. No formats.

Only "\\n" and "\\r\\n" end a line. A line that is not UTF-8, holds a NUL byte or is too long is handed on as
bad, with the reason; a byte order mark at the start is taken off.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pophood.errors import BadFile, NotFound
from pophood.plaintext import HEAD, refusal

MOST_LINE = 16 << 20  # bytes of one record
SEGMENT = 1 << 17  # bytes of plain text that are decoded together
_BUFFER = 1 << 20
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end, or why it cannot be used; `end`: bytes of the file up to here."""

    number: int
    text: str
    why: str | None
    end: int


def open_bytes(path: Path) -> BinaryIO:
    """Open a data file; NotFound without it, BadFile for what no reader here can take."""
    try:
        file = path.open("rb", buffering=_BUFFER)
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise BadFile(f"{path}: cannot be read: {error.strerror}") from None
    why = refusal(file.read(HEAD))
    file.seek(0)
    if why is not None:
        file.close()
        raise BadFile(f"{path} {why}")
    return file


def read_lines(path: Path, most: int = MOST_LINE) -> Iterator[Line]:
    """Every line of a file in memory bounded by `most` bytes.

    [line.text for line in read_lines(Path("two.txt"))]  # ["first", "second"]
    """
    with open_bytes(path) as file:
        end = number = 0
        while data := file.readline(most + 1):
            number += 1
            size = len(data)
            if size > most and not data.endswith(b"\n"):
                while more := file.readline(SEGMENT):
                    size += len(more)
                    if more.endswith(b"\n"):
                        break
                end += size
                why = f"has {size:,} bytes; at most {most:,} are read as one record"
                yield Line(number, "", why, end)
                continue
            end += size
            text, bad = _decode(data.removesuffix(b"\n").removesuffix(b"\r"))
            yield Line(number, text.removeprefix(_BOM), bad, end)


def read_segments(path: Path) -> Iterator[Line]:
    """Plain text in stretches of whole lines (or of one long line), each with the number of its first line.

    "\\r\\n" becomes "\\n"; every other character is kept. Only what holds a bad line comes line by line.
    """
    with open_bytes(path) as file:
        number, end, rest = 1, 0, b""
        if file.read(3) == codecs.BOM_UTF8:
            end = 3
        file.seek(end)
        while data := file.read(SEGMENT):
            data = rest + data
            cut = data.rfind(b"\n") + 1 or _whole(data)
            data, rest = data[:cut], data[cut:]
            yield from _segments(data, number, end)
            number += data.count(b"\n")
            end += len(data)
        yield from _segments(rest, number, end)


def _segments(data: bytes, number: int, end: int) -> Iterator[Line]:
    text, bad = _decode(data)
    if bad is None:
        if text:
            yield Line(number, text.replace("\r\n", "\n"), None, end + len(data))
        return
    for place, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", data)):
        text, bad = _decode(line)
        end += len(line)
        yield Line(number + place, text.replace("\r\n", "\n"), bad, end)


def _decode(data: bytes) -> tuple[str, str | None]:
    at = data.find(b"\0")
    if at >= 0:
        return "", f"has a NUL byte at byte {at + 1:,}"
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return "", f"is not UTF-8: byte 0x{data[error.start]:02X} at byte {error.start + 1:,}"


def _whole(data: bytes) -> int:
    """Where to cut bytes so that the last character stays whole (and "\\r" stays with its "\\n")."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return len(data) - (back == 1 and byte == 0x0D)
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < needed else len(data)
    return len(data)
