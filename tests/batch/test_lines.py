"""Lines of a file or a pipe: ends, blank ones, marks, long ones, however the bytes arrive."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.batch import lines
from pophood.batch.lines import InputLine, LineSource, count_lines, open_lines
from pophood.errors import BadInput, NotFound


class Dripping(io.BytesIO):
    """Bytes of which each read gives some."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        super().__init__(data)
        self.sizes = sizes

    def read(self, size: int | None = -1, /) -> bytes:
        most = self.sizes.pop() if self.sizes else size
        return super().read(most)


def wanted(data: bytes) -> list[InputLine]:
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            digest = hashlib.sha256(line).hexdigest()[:16]
            found.append(InputLine(number, line, len(line), digest))
    return found


PARTS = [b"", b" ", b"\r", b"{}", b'{"a": 1}\r', b"x" * 40]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARTS)), st.booleans(), st.data())
def test_lines_are_those_between_line_feeds(parts: list[bytes], ends: bool, data: st.DataObject) -> None:
    text = b"\n".join(parts) + b"\n" * ends
    sizes = data.draw(st.lists(st.integers(1, 50), max_size=20))
    assert list(LineSource(Dripping(text, sizes), "x")) == wanted(text)


def test_a_byte_order_mark_is_left_out() -> None:
    assert [line.data for line in LineSource(io.BytesIO(b"\xef\xbb\xbf{}\n{}"), "x")] == [b"{}", b"{}"]


def test_other_encodings_are_refused() -> None:
    with pytest.raises(BadInput, match=r"^x is UTF-16; wanted UTF-8"):
        LineSource(io.BytesIO("{}".encode("utf-16")), "x").next()


@pytest.mark.parametrize("size", [99, 100, 101, 5_000])
def test_a_line_that_is_too_long_is_not_kept(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    monkeypatch.setattr(lines, "CHUNK", 64)
    data = b"a\n" + b"x" * size + b"\nb"
    found = list(LineSource(io.BytesIO(data), "x"))
    assert [line.data for line in found] == [b"a", b"x" * size if size <= 100 else None, b"b"]
    assert [line.length for line in found] == [1, size, 1]
    assert [line.digest for line in found] == [line.digest for line in wanted(data)]


def test_a_long_line_takes_no_more_memory_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_BYTES", 100)
    monkeypatch.setattr(lines, "CHUNK", 64)
    source = LineSource(io.BytesIO(b"x" * 10_000), "x")
    while not source.at_end:
        source._read()
        assert len(source._bytes) <= 164


def test_a_pipe_is_not_waited_for() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as file:
        source = LineSource(file, "pipe")
        assert source.next(wait=False) is None and not source.ended
        os.write(writing, b"{}\n{")
        assert source.next(wait=False) is not None
        assert source.next(wait=False) is None and not source.ended
        os.write(writing, b"}")
        os.close(writing)
        line = source.next(wait=False)
        assert line is not None and (line.number, line.data) == (2, b"{}")
        assert source.next(wait=False) is None and source.ended


@pytest.mark.parametrize(("data", "count"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\n\nb", 3)])
def test_lines_are_counted(tmp_path: Path, data: bytes, count: int) -> None:
    (tmp_path / "x").write_bytes(data)
    assert count_lines(str(tmp_path / "x")) == count


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        open_lines(str(tmp_path / "none"))
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        open_lines(str(tmp_path))
