"""PrefixFiles: what is stored comes back to the bit; a file that is not exactly right is never used."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pophood.errors import BadInput, PophoodError
from pophood.model import prefix_files
from pophood.model.prefix_files import CHUNK, HASH, MAGIC, PrefixFiles, StoredChunk
from tests.needs import linux

SIZE = 1000
IDS = list(range(3 * CHUNK + 50))
DATA = [np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8) for seed in range(3)]


class Folder:
    """A folder of prefixes and the lines that it said."""

    def __init__(self, place: Path, identity: str = "model", limit: int = 1 << 20) -> None:
        self.said: list[str] = []
        self.files = PrefixFiles(place / "cache", identity, SIZE, limit, say=self.said.append)
        self.chunks = self.files.chunks(IDS)

    def path(self, chunk: StoredChunk) -> Path:
        return self.files.folder / chunk.name

    def store(self) -> None:
        for chunk, data in zip(self.chunks, DATA, strict=True):
            assert self.files.write(chunk, data)

    def read(self) -> list[Any]:
        return [self.files.read(chunk) for chunk in self.chunks]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.store()
    return folder


def test_what_is_stored_comes_back_and_others_cannot_read_it(folder: Folder, tmp_path: Path) -> None:
    again = Folder(tmp_path)
    assert [chunk.start for chunk in again.chunks] == [0, CHUNK, 2 * CHUNK]
    for found, data in zip(again.read(), DATA, strict=True):
        assert np.array_equal(found, data)
    paths = list(folder.files.folder.iterdir())
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert folder.files.folder.stat().st_mode & 0o777 == 0o700
    assert folder.files.count() == (3, 3 * (len(MAGIC) + 2 * HASH + SIZE))
    assert not folder.said + again.said


def test_neither_tokens_nor_text_are_in_a_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    chunk = folder.files.chunks([77] * CHUNK)[0]
    folder.files.write(chunk, np.zeros(SIZE, np.uint8))
    content = folder.path(chunk).read_bytes()
    assert content[len(MAGIC) : -HASH] == chunk.key + bytes(SIZE)


@pytest.mark.parametrize("other", ["tokens", "identity", "adapters"])
def test_a_key_depends_on_all_that_the_bits_do(folder: Folder, tmp_path: Path, other: str) -> None:
    files = Folder(tmp_path, "another").files if other == "identity" else folder.files
    ids = [1, *IDS[1:]] if other == "tokens" else IDS
    chunks = files.chunks(ids, "adapter:1.0" if other == "adapters" else "")
    assert not {chunk.key for chunk in chunks} & {chunk.key for chunk in folder.chunks}
    assert not any(map(files.has, chunks))


def replaced(content: bytes, at: int, piece: bytes) -> bytes:
    return content[:at] + piece + content[at + len(piece) :]


@settings(deadline=None, max_examples=100)
@given(kind=st.sampled_from(["cut", "flip", "insert", "grow", "swap", "noise"]), draw=st.data())
def test_no_mutation_is_used(kind: str, draw: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Folder(Path(place))
        folder.store()
        chunk, other = folder.chunks[1], folder.chunks[draw.draw(st.sampled_from([0, 2]))]
        content = folder.path(chunk).read_bytes()
        at = draw.draw(st.integers(0, len(content) - 1))
        piece = draw.draw(st.binary(min_size=1, max_size=40))
        changed = {
            "cut": content[:at],
            "flip": replaced(content, at, bytes([content[at] ^ (1 << draw.draw(st.integers(0, 7)))])),
            "insert": content[:at] + piece + content[at:],
            "grow": content + piece,
            "swap": folder.path(other).read_bytes(),
            "noise": replaced(content, at, piece)[: len(content)],
        }[kind]
        folder.path(chunk).write_bytes(changed)
        found = folder.files.read(chunk)
        if changed == content:
            assert found is not None and not folder.said
            return
        assert found is None
        assert len(folder.said) == 1 and str(folder.path(chunk)) in folder.said[0]
        assert not folder.files.has(chunk), "it is not read again"
        assert folder.files.write(chunk, DATA[1]), "but written anew"
        again = folder.files.read(chunk)
        assert again is not None and np.array_equal(again, DATA[1])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def writable(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("plant", [link, pipe, directory, writable], ids=lambda plant: plant.__name__)
def test_what_is_no_private_file_is_not_opened_or_used(folder: Folder, plant: Callable[[Path], None]) -> None:
    linux()
    plant(folder.path(folder.chunks[0]))
    assert folder.read()[0] is None and folder.read()[1] is not None
    assert str(folder.path(folder.chunks[0])) in folder.said[0]


def test_a_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    linux()
    (tmp_path / "cache").mkdir(mode=0o755)
    with pytest.raises(BadInput, match="chmod 700"):
        Folder(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(PophoodError, match="cannot be made"):
        Folder(tmp_path)


def test_the_folder_is_capped_and_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    folder = Folder(tmp_path, limit=5 * (SIZE + 100))
    prompts = [folder.files.chunks([number] * (2 * CHUNK)) for number in range(4)]
    for chunk in prompts[0] + prompts[1]:
        folder.files.write(chunk, DATA[0])
    for number, chunk in enumerate([*prompts[1], *prompts[0]]):  # prompt 1 is older, its end oldest
        used = (100 + number // 2) * 10**9 - chunk.start
        os.utime(folder.path(chunk), ns=(used, used))
    foreign = folder.files.folder / "notes.txt"
    foreign.write_text("mine")
    for chunk in prompts[2]:
        folder.files.write(chunk, DATA[0])
    assert [folder.files.has(chunk) for chunk in prompts[1]] == [True, False], "the end goes first"
    assert all(map(folder.files.has, prompts[0] + prompts[2]))
    for chunk in prompts[3]:
        folder.files.write(chunk, DATA[0])
        assert folder.files.count()[1] <= folder.files.limit
    assert not folder.files.has(prompts[1][0]) and folder.files.has(prompts[0][0])
    assert foreign.read_text() == "mine"


def test_a_folder_smaller_than_a_file_stays_empty(tmp_path: Path) -> None:
    folder = Folder(tmp_path, limit=SIZE)
    assert not folder.files.write(folder.chunks[0], DATA[0])
    assert folder.files.count() == (0, 0)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = Folder(tmp_path)
    folder.files.write(folder.chunks[0], DATA[0])

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(prefix_files, "rename", fail)
        assert not folder.files.write(folder.chunks[1], DATA[1])
        assert folder.files.paused and not folder.files.write(folder.chunks[2], DATA[2])
        folder.files._paused_until = 0.0
        assert not folder.files.write(folder.chunks[2], DATA[2])
    folder.files._paused_until = 0.0
    assert len(folder.said) == 1 and os.strerror(code) in folder.said[0]
    assert [path.name for path in folder.files.folder.iterdir()] == [folder.chunks[0].name]
    assert folder.files.write(folder.chunks[1], DATA[1]), "it is tried again later"


def test_a_file_that_goes_meanwhile_is_a_miss(folder: Folder) -> None:
    folder.path(folder.chunks[0]).unlink()
    assert folder.read()[0] is None and not folder.said


def test_what_a_killed_process_left_is_deleted(folder: Folder, tmp_path: Path) -> None:
    old = folder.path(folder.chunks[0]).with_name(f".{folder.chunks[0].name}.77-abc.tmp")
    new = old.with_name(f".{folder.chunks[1].name}.77-abc.tmp")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    Folder(tmp_path)
    assert not old.exists() and new.exists()
