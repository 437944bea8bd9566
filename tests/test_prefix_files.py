"""PrefixFiles: prefixes survive a restart with the same bits; damaged files are never used."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import PophoodError
from pophood.generate import PrefixCache
from pophood.model.engine import Engine
from pophood.model.prefix_files import PrefixFiles
from tests.tiny import tiny_folder

SYSTEM = [int(i) for i in np.random.default_rng(1).integers(3, 400, 75)]
TALKS = [[*SYSTEM, *[7 + i] * (40 + i)] for i in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("prefixes") / "model", "llama", seed=3)


@pytest.fixture(params=["f32", "f16", "q8"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Engine:
    return pophood.load(folder, kv=request.param, context=256).engine


def filled(engine: Engine, talks: list[list[int]] = TALKS, blocks: int = 100) -> PrefixCache:
    prefix = PrefixCache(engine, blocks)
    for ids in talks:
        taken = prefix.take([*ids, 1])
        engine.logits([(taken.sequence, ids[taken.length :])])
        prefix.keep(taken.sequence, ids)
    return prefix


def stored(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_prefixes_survive_a_restart_with_the_same_bits(engine: Engine, tmp_path: Path) -> None:
    prefix = filled(engine)
    files = PrefixFiles(tmp_path / "cache", "model")
    assert files.save(engine, prefix) == 4 and files.save(engine, prefix) == 0, "nothing is stored twice"
    sizes = sum(path.stat().st_size for path in stored(files.folder))
    own = len(SYSTEM) + sum(len(talk) - len(SYSTEM) for talk in TALKS)
    assert sizes < own * int(engine._native.position_bytes()) * 1.1 + 20_000, "what is shared is stored once"
    assert {path.stat().st_mode & 0o777 for path in stored(files.folder)} == {0o600}
    assert files.folder.stat().st_mode & 0o777 == 0o700
    again = PrefixCache(engine, 100)
    assert PrefixFiles(tmp_path / "cache", "model").load(engine, again) == own
    assert again.blocks == prefix.blocks
    for talk in TALKS:
        one, other = prefix.take([*talk, 9]), again.take([*talk, 9])
        assert one.length == other.length == len(talk)
        assert np.array_equal(engine.logits([(one.sequence, [9])]), engine.logits([(other.sequence, [9])]))


def test_only_what_fits_is_loaded_and_only_of_this_model(engine: Engine, tmp_path: Path) -> None:
    files = PrefixFiles(tmp_path, "model")
    files.save(engine, filled(engine))
    small = PrefixCache(engine, 4)
    files.load(engine, small)
    assert small.blocks <= 4 and small.take([*TALKS[2], 1]).length > 0, "the newest is kept"
    assert PrefixFiles(tmp_path, "another").load(engine, PrefixCache(engine, 100)) == 0
    assert len(stored(tmp_path)) == 4
    files.save(engine, filled(engine, [[1] * 20]))
    assert len(stored(tmp_path)) == 4, "twenty tokens are not worth a file"


def test_a_damaged_file_is_deleted_and_nothing_wrong_is_used(folder: Path, tmp_path: Path) -> None:
    """Every kind of damage, at many places: cut, changed, lengthened, swapped."""
    engine = pophood.load(folder, context=256).engine
    files = PrefixFiles(tmp_path, "model")
    files.save(engine, filled(engine))
    whole = {path.name: path.read_bytes() for path in stored(tmp_path)}
    draw = np.random.default_rng(2)
    names = list(whole)
    truth = filled(engine)
    for trial in range(60):
        for path, original in whole.items():
            (tmp_path / path).write_bytes(original)
        name = names[trial % 4]
        content = bytearray(whole[name])
        place = int(draw.integers(len(content))) if trial % 3 else int(draw.integers(600))
        kind = draw.integers(4)
        if kind == 0:
            del content[place:]
        elif kind == 1:
            content[place] ^= 1 << int(draw.integers(8))
        elif kind == 2:
            content[place:place] = b"9" * int(draw.integers(1, 40))
        else:
            content = bytearray(whole[names[(trial + 1) % 4]])
        (tmp_path / name).write_bytes(content)
        again = PrefixCache(engine, 100)
        files.load(engine, again)
        gone = not (tmp_path / name).exists()
        assert gone or b'"identity": "model"' not in content, "the files of another model stay"
        for talk in TALKS:
            found, real = again.take([*talk, 9]), truth.take([*talk, 9])
            if found.length == len(talk):
                ours, theirs = (engine.logits([(one.sequence, [9])]) for one in (found, real))
                assert np.array_equal(ours, theirs)
        again.forget()


def test_the_folder_is_capped_and_the_oldest_go(folder: Path, tmp_path: Path) -> None:
    engine = pophood.load(folder, context=256).engine
    talks = [[i] * 64 for i in range(3, 9)]
    PrefixFiles(tmp_path, "model").save(engine, filled(engine, talks[:1]))
    size = stored(tmp_path)[0].stat().st_size
    for path in stored(tmp_path):
        os.utime(path, (1, 1))
    PrefixFiles(tmp_path, "model", int(size * 5.5)).save(engine, filled(engine, talks[1:]))
    assert len(stored(tmp_path)) == 5
    again = PrefixCache(engine, 100)
    PrefixFiles(tmp_path, "model").load(engine, again)
    assert [again.take([*talk, 1]).length for talk in talks] == [0, 64, 64, 64, 64, 64]


def test_a_full_disk_leaves_what_was_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = pophood.load(folder, context=256).engine
    files = PrefixFiles(tmp_path, "model")
    files.save(engine, filled(engine, TALKS[:1]))
    before = [path.read_bytes() for path in stored(tmp_path)]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PophoodError, match=r"disk is full|No space"):
        files.save(engine, filled(engine))
    assert [path.read_bytes() for path in stored(tmp_path)] == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PophoodError, match="cannot be made"):
        PrefixFiles(tmp_path / "file" / "cache", "model")
