"""The reader of plain text, on bytes that Python's codecs write: marks removed, encodings read or refused."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pophood.errors import BadInput, NotFound
from pophood.plaintext import LineReader, decode, read_bytes, read_text, refusal, without_mark

WORDS = "The capital of Spain is"
ENCODINGS = {  # codec -> (its byte order mark, its name)
    "utf-16": (b"", "UTF-16"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "UTF-16"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "UTF-16"),
    "utf-32": (b"", "UTF-32"),
    "utf-32-be": (codecs.BOM_UTF32_BE, "UTF-32"),
}


def test_utf8_is_read_with_and_without_a_mark(tmp_path: Path) -> None:
    for mark in (b"", codecs.BOM_UTF8, 2 * codecs.BOM_UTF8):
        (tmp_path / "a.txt").write_bytes(mark + "café\r\n\ufeffnext".encode())
        assert read_text(tmp_path / "a.txt") == "café\r\n\ufeffnext"  # a mark inside the text is a character
    assert without_mark(codecs.BOM_UTF8, "x") == b"" == without_mark(b"", "x")


@pytest.mark.parametrize("codec", ENCODINGS)
def test_another_encoding_is_named_with_the_way_out(codec: str) -> None:
    mark, name = ENCODINGS[codec]
    with pytest.raises(BadInput) as caught:
        decode(mark + WORDS.encode(codec), "notes.txt")
    assert str(caught.value) == (
        f"notes.txt is {name}; wanted UTF-8: convert it (`iconv -f {name} -t UTF-8`, or save it as UTF-8 in"
        " an editor)"
    )


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", [WORDS, "Señora Ñandú\nça va", "{}\n{}\n"])
def test_a_missing_mark_is_no_way_around(codec: str, text: str) -> None:
    name = codec.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert (refusal(text.encode(codec)) or "").startswith(f"is {name}; wanted UTF-8")


@given(st.text(max_size=200))
def test_text_in_utf8_is_never_refused(text: str) -> None:
    """UTF-8 is refused only for a binary format, or if every second byte is NUL."""
    data = text.replace("\0", "").encode()
    if not data.startswith((b"%PDF-", b"PAR1", b"BZh")):
        assert decode(data, "x") == text.replace("\0", "").lstrip("\ufeff")


def test_a_few_nul_bytes_are_no_encoding() -> None:
    assert refusal(b"one\0two\0three\0four\0") is None
    assert refusal(bytes(64)) is None
    assert decode(b"a\0b", "x") == "a\0b"


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sheet.xml", "<a/>")
    return file.getvalue()


def _sqlite(place: Path) -> bytes:
    connection = sqlite3.connect(place / "a.db")
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()
    return (place / "a.db").read_bytes()


FORMATS: dict[str, Callable[[Path], bytes]] = {
    "a gzip archive; wanted plain text: unpack it first": lambda _: gzip.compress(b"text"),
    "a bzip2 archive": lambda _: bz2.compress(b"text"),
    "an xz archive": lambda _: lzma.compress(b"text"),
    "a zip archive (as .xlsx and .docx are)": lambda _: _zip(),
    "an SQLite database": _sqlite,
    "a PDF": lambda _: b"%PDF-1.4\n",
}


@pytest.mark.parametrize("words", FORMATS)
def test_a_file_that_is_no_text_is_named(words: str, tmp_path: Path) -> None:
    assert (refusal(FORMATS[words](tmp_path)) or "").startswith(f"is {words}")


def test_invalid_bytes_are_told_with_their_place() -> None:
    with pytest.raises(
        BadInput, match=r"a\.txt is not UTF-8: byte 0xE9 at offset 3: convert it .*WINDOWS-1252"
    ):
        decode(b"caf\xe9", "a.txt")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        read_bytes(tmp_path / "none")
    with pytest.raises(BadInput, match="cannot be read"):
        read_bytes(tmp_path)


def test_lines_of_a_pipe() -> None:
    reader = LineReader(io.BytesIO(codecs.BOM_UTF8 + b"one\r\n\n\xff\nlast"))
    assert [reader.line() for _ in range(5)] == ["one", "", "\ufffd", "last", None]
    assert LineReader(io.BytesIO(b"caf\xe9\n")).line("surrogateescape") == "caf\udce9"
    assert LineReader(io.BytesIO(codecs.BOM_UTF8)).line() is None
    with pytest.raises(BadInput, match="stdin is UTF-16; wanted UTF-8"):
        LineReader(io.BytesIO("Hello\nthere\n".encode("utf-16"))).line()
