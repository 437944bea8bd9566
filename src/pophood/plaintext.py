"""Decodes plain text from files, pipes and training data.

Text is UTF-8; a byte order mark at its start is removed. Other encodings and files that are not text are
refused by name, with advice on conversion. Nothing is converted here, because a wrong guess would go
unnoticed.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import BinaryIO

from pophood.errors import BadInput, NotFound

HEAD = 1024  # bytes from the start that `refusal` examines
_MARK = codecs.BOM_UTF8
_MARKS = {  # longer ones first, since the mark of UTF-32-LE begins with that of UTF-16-LE
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_PANDAS = "convert it to JSON lines, as in pandas.{}(FILE).to_json(NEW, orient='records', lines=True)"
_FORMATS: tuple[tuple[bytes, str, str], ...] = (  # (first bytes, format, advice)
    (b"\x1f\x8b", "a gzip archive", "unpack it first (`gunzip`)"),
    (b"BZh91AY&SY", "a bzip2 archive", "unpack it first (`bunzip2`)"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it first (`unxz`)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it first (`unzstd`)"),
    (b"PK\x03\x04", "a zip archive (as .xlsx and .docx are)", "unpack it, or save it as CSV or plain text"),
    (b"PAR1\x15", "a Parquet file", _PANDAS.format("read_parquet")),
    (b"ARROW1\0\0", "an Arrow file", _PANDAS.format("read_feather")),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV"),
    (b"%PDF-", "a PDF", "save its text (`pdftotext`)"),
)


def refusal(head: bytes) -> str | None:
    """Say why bytes that begin with `head` are not UTF-8 text, as the end of a sentence; None if they may be.

    >>> refusal("Hi".encode("utf-16"))
    'is UTF-16; wanted UTF-8: convert it (`iconv -f UTF-16 -t UTF-8`, or save it as UTF-8 in an editor)'
    """
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), _unmarked(head))
    if encoding is not None:
        way = f"convert it (`iconv -f {encoding} -t UTF-8`, or save it as UTF-8 in an editor)"
        return f"is {encoding}; wanted UTF-8: {way}"
    for magic, name, advice in _FORMATS:
        if head.startswith(magic):
            return f"is {name}; wanted plain text: {advice}"
    return None


def _unmarked(head: bytes) -> str | None:
    """Recognise UTF-16 or UTF-32 without a mark by the NUL bytes of Latin letters in fixed places."""
    head = head[: min(len(head), HEAD) // 4 * 4]
    empty = [head[place::4].count(0) for place in range(4)]
    least = len(head) // 8 + 1  # more than half of the bytes at one place of four
    if len(head) < 8 or max(empty) < least:
        return None
    pattern = "".join("-0"[count >= least] for count in empty)  # "0" marks the places that are mostly NUL
    return {"-000": "UTF-32LE", "000-": "UTF-32BE", "-0-0": "UTF-16LE", "0-0-": "UTF-16BE"}.get(pattern)


def without_mark(data: bytes, origin: str) -> bytes:
    """Remove a byte order mark from the bytes of a text; BadInput for another encoding or format.

    `origin` names the text in the message: a path, or "stdin".

    >>> without_mark(b"\\xef\\xbb\\xbfHi", "stdin")
    b'Hi'
    """
    why = refusal(data[:HEAD])
    if why is not None:
        raise BadInput(f"{origin} {why}")
    while data.startswith(_MARK):  # a program may have added a mark to a text that already had one
        data = data[len(_MARK) :]
    return data


def decode(data: bytes, origin: str) -> str:
    """Decode UTF-8 without a byte order mark; BadInput for bytes that are not UTF-8.

    >>> decode("\\ufeffcafé".encode(), "stdin")
    'café'
    """
    data = without_mark(data, origin)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{origin} is not UTF-8: byte 0x{data[error.start]:02X} at offset {error.start:,}: convert it"
            " (`iconv -f WINDOWS-1252 -t UTF-8` if it comes from an older Windows program)"
        ) from None


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a text file, whatever they are; NotFound or BadInput if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """Read the text of a file without a byte order mark, leaving line ends unchanged.

    Raises NotFound if there is no such file, BadInput if it cannot be read or is not UTF-8.
    """
    return decode(read_bytes(path), str(path))


class LineReader:
    """Reads lines of text from a pipe as they arrive, for answers and turns of a chat."""

    def __init__(self, stream: BinaryIO, origin: str = "stdin") -> None:
        self._stream, self._origin, self._first = stream, origin, True

    def line(self, errors: str = "replace") -> str | None:
        """Return the next line without its end, or None at the end of the input.

        `errors` handles bytes that are not UTF-8, as in `bytes.decode`. Raises BadInput if the first line
        shows another encoding.
        """
        data = self._stream.readline()
        if self._first:
            data, self._first = without_mark(data, self._origin), False
        return data.decode("utf-8", errors).rstrip("\r\n") if data else None
