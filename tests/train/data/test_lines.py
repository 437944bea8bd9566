"""Bytes to lines: numbers, limits, bad lines and tolerated ones."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pophood.errors import BadFile, NotFound
from pophood.train.data.read import lines
from pophood.train.data.read.lines import read_lines, read_segments


def told(path: Path, most: int = lines.MOST_LINE) -> list[tuple[int, str, str | None]]:
    return [(line.number, line.text, line.why) for line in read_lines(path, most)]


def test_ends_marks_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbffirst\r\nse\xffcond\nthi\x00rd\n\n\xe2\x82\xac five\xe2\x80\xa8still five")
    assert told(path) == [
        (1, "first", None),
        (2, "", "is not UTF-8: byte 0xFF at byte 3"),
        (3, "", "has a NUL byte at byte 4"),
        (4, "", None),
        (5, "€ five\u2028still five", None),
    ]


@pytest.mark.parametrize(("size", "bad"), [(99, False), (100, False), (101, True), (250, True)])
def test_a_line_has_a_bound(size: int, bad: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * size + b"\nnext")
    (number, text, why), second = told(path, most=100)
    assert (number, len(text), second) == (1, 0 if bad else size, (2, "next", None))
    assert why == (f"has {size + 1} bytes; a record may have at most 100" if bad else None)


def test_fifty_megabytes_in_one_line_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a\n" + b"x" * 50_000_000 + b"\nb\n")
    tracemalloc.start()
    found = told(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(number, text) for number, text, _ in found] == [(1, "a"), (2, ""), (3, "b")]
    assert found[1][2] == "has 50,000,001 bytes; a record may have at most 16,777,216"
    assert peak < 40 << 20


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    text=st.text(st.sampled_from("a\n\r€é\U0001f44d \u2028\u3000"), max_size=60),
    size=st.integers(1, 7),
)
def test_segments_are_the_text(text: str, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Segments together are the text with "\\n" as line end, even if a cut falls within a character."""
    path = tmp_path_factory.mktemp("s") / "a"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SEGMENT", size)
        found = list(read_segments(path))
    assert "".join(segment.text for segment in found) == text.replace("\r\n", "\n")
    assert not any(segment.why for segment in found)
    before = ""
    for segment in found:
        assert segment.number == before.count("\n") + 1
        before += segment.text
    assert not found or found[-1].end == len(text.encode())


def test_a_bad_line_of_text_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one\ntw\xc3\nthree\nfou\xe2\x82")
    found = [(segment.number, segment.text, bool(segment.why)) for segment in read_segments(path)]
    assert [(n, text) for n, text, bad in found if not bad] == [(1, "one\n"), (3, "three\n")]
    assert [n for n, _, bad in found if bad] == [2, 4]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"\xfe\xff" * (codec == "utf-16-be") + "hello".encode(codec))
    with pytest.raises(BadFile, match=rf"is {codec[:6].upper()}; wanted UTF-8: convert it"):
        list(read_lines(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        list(read_lines(tmp_path / "none"))
