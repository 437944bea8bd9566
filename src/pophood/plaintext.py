"""Bytes to text: the one reader of plain text, for files, pipes and training data alike.

Text is UTF-8. A byte order mark at its start is no part of the text and is taken off. Other encodings and
files that are no text are refused by name with the way to convert them; nothing is converted here, because a
guess can be wrong without anyone noticing.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import BinaryIO

from pophood.errors import BadInput, NotFound

HEAD = 1024  # bytes from the start that `refusal` needs to see
_MARK = codecs.BOM_UTF8
_MARKS = {  # the longer ones first: that of UTF-32-LE begins like that of UTF-16-LE
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_PANDAS = "convert it to JSON lines, as in pandas.{}(FILE).to_json(NEW, orient='records', lines=True)"
_FORMATS: tuple[tuple[bytes, str, str], ...] = (  # first bytes, format, what to do
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
    """Why bytes that begin with `head` cannot be UTF-8 text, as the end of a sentence; None if they may be.

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
    """UTF-16 or UTF-32 without a mark, by the NUL bytes that its Latin letters have in fixed places."""
    head = head[: min(len(head), HEAD) // 4 * 4]
    empty = [head[place::4].count(0) for place in range(4)]
    least = len(head) // 8 + 1  # more than half of a place's bytes
    if len(head) < 8 or max(empty) < least:
        return None
    pattern = "".join("-0"[count >= least] for count in empty)  # the places, of four, that are mostly NUL
    return {"-000": "UTF-32LE", "000-": "UTF-32BE", "-0-0": "UTF-16LE", "0-0-": "UTF-16BE"}.get(pattern)


def without_mark(data: bytes, origin: str) -> bytes:
    """The bytes of a text without a byte order mark; BadInput for another encoding or format.

    `origin` names the text in the message: a path, or "stdin".

    >>> without_mark(b"\\xef\\xbb\\xbfHi", "stdin")
    b'Hi'
    """
    why = refusal(data[:HEAD])
    if why is not None:
        raise BadInput(f"{origin} {why}")
    while data.startswith(_MARK):  # a program that adds a mark may have been given a text with one
        data = data[len(_MARK) :]
    return data


def decode(data: bytes, origin: str) -> str:
    """The text of some bytes, without a byte order mark; BadInput where they are not UTF-8.

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
    """The bytes of a file of text, whatever they are; NotFound or BadInput where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark; its line ends are kept as they are.

    Raises NotFound without the file, BadInput where it cannot be read or is not UTF-8.
    """
    return decode(read_bytes(path), str(path))


class LineReader:
    """Lines of text from a pipe, one at a time, as they come: for answers and turns of a chat."""

    def __init__(self, stream: BinaryIO, origin: str = "stdin") -> None:
        self._stream, self._origin, self._first = stream, origin, True

    def line(self, errors: str = "replace") -> str | None:
        """The next line without its end; None at the end of the input.

        `errors` says what becomes of bytes that are not UTF-8, as in `bytes.decode`. Raises BadInput where
        the first line shows another encoding.
        """
        data = self._stream.readline()
        if self._first:
            data, self._first = without_mark(data, self._origin), False
        return data.decode("utf-8", errors).rstrip("\r\n") if data else None
