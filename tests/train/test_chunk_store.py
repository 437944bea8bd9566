"""The chunk store: rows are found by their key, whole, and those of another key are discarded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pophood.train.loop.chunk_store import ChunkStore

STARTS = np.array([0, 3, 5, 9], np.int64)
WIDTH = 16


def chunk(number: int) -> NDArray[np.uint8]:
    rows = int(STARTS[number + 1] - STARTS[number])
    return np.full((rows, WIDTH), number + 1, np.uint8)


def opened(folder: Path, key: str, said: list[str]) -> ChunkStore:
    return ChunkStore(folder, "train", key, STARTS, WIDTH, said.append)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A folder with the first and the last chunk."""
    said: list[str] = []
    rows = opened(tmp_path / "trunk", "key", said)
    for number in (0, 2):
        rows.write(number, chunk(number))
    rows.close()
    assert said == []
    return tmp_path / "trunk"


def test_chunks_are_found_by_their_key(kept: Path) -> None:
    said: list[str] = []
    rows = opened(kept, "key", said)
    assert [rows.has(number) for number in range(3)] == [True, False, True] and said == []
    found = rows.read(5, 4)
    rows.close()
    assert found is not None and np.array_equal(found, chunk(2))


def damage(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / f"train.{name}").write_bytes(content)


@pytest.mark.parametrize(
    ("key", "harm", "words"),
    [
        ("another", lambda folder: None, "for other weights, data or settings"),
        ("key", damage("facts", b'{"version": 0, "key": "key"}'), "discarding"),
        ("key", damage("facts", b"{"), "damaged ("),
        ("key", damage("marks", b"\0" * 8), "discarding"),
    ],
)
def test_useless_rows_are_discarded_with_a_message(
    kept: Path, key: str, harm: Callable[[Path], object], words: str
) -> None:
    harm(kept)
    said: list[str] = []
    rows = opened(kept, key, said)
    assert len(said) == 1 and words in said[0]
    assert not any(rows.has(number) for number in range(3))
    assert (kept / "train.rows").stat().st_size == 0
    rows.write(1, chunk(1))
    rows.close()
    again = opened(kept, key, said)
    there = [again.has(number) for number in range(3)]
    again.close()
    assert there == [False, True, False] and len(said) == 1
