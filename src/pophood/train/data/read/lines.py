"""Reads a file as numbered lines of text, in bounded memory. No formats.

Only "\\n" and "\\r\\n" end a line. A line that is not UTF-8, contains a NUL byte or is too long is passed on
as bad, with the reason. A byte order mark at the start is dropped.
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
SEGMENT = 1 << 17  # bytes of plain text to decode at once
_BUFFER = 1 << 20
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line without its line end, or the reason why it cannot be used."""

    number: int
    text: str
    why: str | None  # the reason, if the line is bad
    end: int  # bytes of the file up to here


def open_bytes(path: Path) -> BinaryIO:
    """Open a data file. Raises NotFound if it is missing, BadFile if it is not text, such as an archive."""
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


def read_lines(path: Path, most: int = MOST_LINE) -> Iterator[TextLine]:
    """Yield every line of a file, in memory bounded by `most` bytes.

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
                why = f"has {size:,} bytes; a record may have at most {most:,}"
                yield TextLine(number, "", why, end)
                continue
            end += size
            text, bad = _decode(data.removesuffix(b"\n").removesuffix(b"\r"))
            yield TextLine(number, text.removeprefix(_BOM), bad, end)


def read_segments(path: Path) -> Iterator[TextLine]:
    """Yield plain text in segments of whole lines, or parts of a very long line.

    Each has the number of its first line. "\\r\\n" becomes "\\n"; all other characters are kept. A segment
    with a bad line is yielded line by line.
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


def _segments(data: bytes, number: int, end: int) -> Iterator[TextLine]:
    text, bad = _decode(data)
    if bad is None:
        if text:
            yield TextLine(number, text.replace("\r\n", "\n"), None, end + len(data))
        return
    for place, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", data)):
        text, bad = _decode(line)
        end += len(line)
        yield TextLine(number + place, text.replace("\r\n", "\n"), bad, end)


def _decode(data: bytes) -> tuple[str, str | None]:
    at = data.find(b"\0")
    if at >= 0:
        return "", f"has a NUL byte at byte {at + 1:,}"
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return "", f"is not UTF-8: byte 0x{data[error.start]:02X} at byte {error.start + 1:,}"


def _whole(data: bytes) -> int:
    """Return where to cut bytes so that no character is split, nor "\\r" from its "\\n"."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return len(data) - (back == 1 and byte == 0x0D)
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < needed else len(data)
    return len(data)
