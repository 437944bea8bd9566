"""The cache of token ids: complete or absent, reused, and rewritten when anything differs; full disks."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pophood.errors import BadFile, PophoodError
from pophood.text.chat.chat_template import ChatTemplate
from pophood.train.data import DataProgress
from pophood.train.data.dataset.cache import fingerprint, line_ends
from pophood.train.data.encode.encode_files import STRETCH
from tests import needs, processes
from tests.conftest import ROOT
from tests.hub.test_disk_full import FullDisk
from tests.train.data.samples import (
    SHAKESPEARE,
    TASKS,
    TURNS,
    byte_level,
    gpt2,
    opened,
    sentence_pieces,
    write_lines,
)


def test_ids_are_made_once(tmp_path: Path) -> None:
    first, second = opened(TASKS, cache=tmp_path), opened(TASKS, cache=tmp_path)
    assert (first.report.cached, second.report.cached) == (False, True)
    assert first.report.cache == second.report.cache
    assert [e.ids.tolist() for e in first.train] == [e.ids.tolist() for e in second.train]
    assert first.report.cache_bytes == sum(p.stat().st_size for p in Path(first.report.cache).iterdir())


def test_anything_that_changes_ids_makes_them_anew(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(3)])
    other = ChatTemplate(TURNS.source + " ", "<|im_start|>", "<|im_end|>")
    made = [
        opened(path),
        opened(path, joined=True),
        opened(path, special=True),
        opened(path, completions_only=False),
        opened(path, template=other),
        opened(path, tokenizer=gpt2()),
    ]
    path.write_bytes(path.read_bytes().replace(b"c2", b"c3"))
    made.append(opened(path))
    assert not any(data.report.cached for data in made)
    assert len({data.report.cache for data in made}) == len(made)
    same = [
        opened(path),
        opened(path, length=16),
        opened(path, seed=5, validation=0.5),
        opened(path, long="split"),
    ]
    assert {data.report.cache for data in same} == {made[-1].report.cache}


def test_tokenizers_are_told_apart() -> None:
    prints = {fingerprint(tokenizer) for tokenizer in (byte_level(), byte_level("<|endoftext|>"), gpt2())}
    assert len(prints | {fingerprint(sentence_pieces())}) == 4
    assert fingerprint(gpt2()) in prints


def test_wide_vocabularies_have_wide_ids(tmp_path: Path) -> None:
    from tests.train.data.test_packing import Memory

    assert Memory([[False]]).ids.dtype == np.uint32
    small = opened(SHAKESPEARE, cache=tmp_path, tokenizer=gpt2())
    assert small.train.store.ids.dtype == np.uint16
    assert int(small.train.store.ids.max()) > 1 << 15


@pytest.mark.parametrize("vocabulary", [byte_level, gpt2, sentence_pieces])
def test_a_long_text_has_the_ids_of_the_whole(vocabulary: Any, tmp_path: Path) -> None:
    """The text is the same wherever it was cut; a SentencePiece token across words may differ there."""
    shakespeare = SHAKESPEARE.read_text(encoding="utf-8")
    text = shakespeare + "Ünïcödé 日本語テキスト  \n\n" * 3000 + shakespeare
    path = tmp_path / "long.txt"
    path.write_text(text, encoding="utf-8")
    assert len(text) > 4 * STRETCH
    tokenizer = vocabulary()
    data = opened(path, tokenizer=tokenizer, validation=0)
    found, expected = data.train[0].ids.tolist()[:-1], tokenizer.encode(text)
    if vocabulary is sentence_pieces:
        assert tokenizer.decode(found) == tokenizer.decode(expected) == text
        assert abs(len(found) - len(expected)) <= 2 * len(text) // STRETCH
    else:
        assert found == expected
    assert data.train[0].trained.tolist() == [False] + [True] * len(found)


def test_a_text_without_words_is_cut_anywhere_and_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "dna.txt"
    text = "acgt" * 100_000
    path.write_text(text, encoding="ascii")
    for tokenizer in (byte_level(), sentence_pieces()):
        data = opened(path, tokenizer=tokenizer, validation=0)
        assert tokenizer.decode(data.train[0].ids.tolist()) == text


def test_a_full_disk_at_every_write_leaves_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": f"document {i}"} for i in range(12)])
    byte_level()  # created beforehand, because it writes files too
    failed = []
    for fail_at in range(1, 100):
        kept = tmp_path / f"kept-{fail_at}"
        disk = FullDisk(fail_at)
        with disk.in_place():
            try:
                opened(path, cache=kept)
                error = None
            except PophoodError as caught:
                error = str(caught)
        if not disk.failed:
            break
        failed.append(disk.failed)
        if error is not None:
            assert "the disk is full: needed" in error and "free" in error
        whole = [entry for entry in kept.glob("*") if entry.suffix != ".lock"] if kept.exists() else []
        assert all((entry / "facts.json").is_file() and not entry.name.startswith(".") for entry in whole)
        again = opened(path, cache=kept)
        assert len(again.train) + len(again.validation) == 12
        shutil.rmtree(kept)
    assert not disk.failed
    assert {"mkdir", "open ids.bin", "write", "fsync", "replace"} <= set(failed)
    assert len(failed) > 10


LIMITED = """
import resource, sys
from pathlib import Path
from pophood.errors import PophoodError
from tests.train.data.samples import SHAKESPEARE, byte_level, opened
byte_level()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
try:
    opened(SHAKESPEARE, cache=Path(sys.argv[2]))
except PophoodError as error:
    print(error)
"""


def test_when_the_kernel_itself_refuses_the_write(tmp_path: Path) -> None:
    """`needed` estimates the size of the whole store from the progress so far."""
    needs.linux()
    done = processes.run(
        [sys.executable, "-c", LIMITED, "20000", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.split()
    needed = int(words[words.index("needed") + 1].replace(",", ""))
    whole = opened(SHAKESPEARE, cache=tmp_path / "whole").report.cache_bytes
    assert 0.9 * whole < needed < 1.5 * whole
    assert not [entry for entry in tmp_path.iterdir() if entry.suffix == ".tmp" or entry.name.startswith(".")]


KILLED = """
import os, sys
from pathlib import Path
from pophood.train.data.dataset import store
from tests.train.data.samples import SHAKESPEARE, opened
store.sync_file = lambda file: os._exit(9)
opened(SHAKESPEARE, cache=Path(sys.argv[1]))
"""


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    done = processes.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 9
    assert len([*tmp_path.glob(".*.tmp")]) == 1
    assert not opened(SHAKESPEARE, cache=tmp_path).report.cached
    assert not [*tmp_path.glob(".*.tmp")]


@pytest.mark.parametrize("damage", ["facts", "short", "gone"])
def test_damage_is_named(damage: str, tmp_path: Path) -> None:
    folder = Path(opened(TASKS, cache=tmp_path).report.cache)
    if damage == "facts":
        (folder / "facts.json").write_text("{", encoding="utf-8")
    elif damage == "short":
        (folder / "ids.bin").write_bytes((folder / "ids.bin").read_bytes()[:-2])
    else:
        (folder / "documents.bin").unlink()
    with pytest.raises(BadFile, match=r"the cached ids are damaged .*: delete this folder"):
        opened(TASKS, cache=tmp_path)


def test_progress_is_told(tmp_path: Path) -> None:
    from pophood.train.data import DataOptions, open_data

    told: list[DataProgress] = []
    open_data(SHAKESPEARE, byte_level(), None, DataOptions(cache=tmp_path), told.append)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == told[-1].total == SHAKESPEARE.stat().st_size
    assert told[-1].tokens > 30_000


def test_line_ends_of_tokens() -> None:
    ends = line_ends(gpt2())
    assert (ends[198], ends[628], ends[262]) == (1, 2, 0)  # "\n", "\n\n", " the"


def test_facts_are_plain_json(tmp_path: Path) -> None:
    facts = json.loads((Path(opened(TASKS, cache=tmp_path).report.cache) / "facts.json").read_bytes())
    assert facts["good"] == facts["documents"] == 175
    assert facts["files"] == [str(TASKS)]
