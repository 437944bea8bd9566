"""Packing: each learned token once per epoch, nothing across documents, batches by (epoch, index) alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pophood.errors import BadInput
from pophood.train.data import IGNORED, Batch, PackedSampler
from pophood.train.data.dataset.examples import Examples
from pophood.train.data.dataset.packing import WINDOW, pack
from pophood.train.data.dataset.store import DOCUMENT
from tests.train.data.samples import SHAKESPEARE, TASKS, byte_level, opened, write_lines


class Memory:
    """A store in memory whose ids are their own places."""

    def __init__(self, trained: list[list[bool]]) -> None:
        self.ids = np.arange(sum(map(len, trained)), dtype=np.uint32)
        self.bits = np.array([bit for document in trained for bit in document], np.bool_)
        self.facts = {"files": ["f"]}

    def trained(self, start: int, end: int) -> NDArray[np.bool_]:
        return self.bits[start:end]


def examples(trained: list[list[bool]], text: list[bool], length: int, long: Any = "auto") -> Examples:
    rows, at = np.zeros(len(trained), DOCUMENT), 0
    for row, document, plain in zip(rows, trained, text, strict=True):
        places = [at + i for i, bit in enumerate(document) if bit] or [at]
        row["start"], row["end"], row["first"], row["last"] = at, at + len(document), places[0], places[-1]
        row["line"], row["text"] = int(at), plain
        at += len(document)
    return Examples(Memory(trained), rows, length=length, long=long)  # type: ignore[arg-type]


DOCUMENTS = st.lists(
    st.tuples(
        st.lists(st.booleans(), min_size=1, max_size=30).map(lambda bits: [False, *bits]), st.booleans()
    ),
    min_size=1,
    max_size=25,
)


def batches(sampler: PackedSampler, epoch: int) -> list[Batch]:
    return [sampler.batch(epoch, index) for index in range(sampler.batches_per_epoch(epoch))]


@settings(deadline=None, max_examples=150)
@given(
    documents=DOCUMENTS,
    size=st.integers(1, 4),
    length=st.integers(2, 20),
    epoch=st.integers(0, 3),
    long=st.sampled_from(["auto", "cut", "split"]),
)
def test_every_learned_token_is_a_target_once(
    documents: list[tuple[list[bool], bool]], size: int, length: int, epoch: int, long: str
) -> None:
    trained, text = [bits for bits, _ in documents], [plain for _, plain in documents]
    given_examples = examples(trained, text, length, long)
    sampler = PackedSampler(given_examples, size, length, seed=7)
    expected: list[int] = []
    at = 0
    for bits, plain in documents:
        splits = long == "split" or (long == "auto" and plain)
        expected += [at + i for i, bit in enumerate(bits) if bit and (splits or i <= length)]
        at += len(bits)
    found: Counter[int] = Counter()
    for batch in batches(sampler, epoch):
        assert batch.tokens.shape[0] <= size and batch.tokens.shape[1] <= length
        learned = batch.targets != IGNORED
        found.update(batch.targets[learned].tolist())
        # What follows in the text: a target never crosses into another document.
        assert (batch.targets[learned] == batch.tokens[learned] + 1).all()
        assert (batch.documents[learned] >= 0).all()
        check_rows(batch)
    assert found == Counter(expected)


def check_rows(batch: Batch) -> None:
    """Documents are numbered from 0 in each row, positions restart, and padding is at the end."""
    count = 0
    for tokens, targets, positions, numbers in zip(
        batch.tokens, batch.targets, batch.positions, batch.documents, strict=True
    ):
        used = int((numbers >= 0).sum())
        assert (
            (numbers[used:] == -1).all() and (targets[used:] == IGNORED).all() and (tokens[used:] == 0).all()
        )
        assert sorted(numbers[:used].tolist()) == numbers[:used].tolist()
        distinct = numbers[:used].max() + 1 if used else 0
        for number in range(distinct):
            place = np.flatnonzero(numbers == number)
            assert positions[place].tolist() == list(range(len(place)))
            assert (np.diff(tokens[place]) == 1).all()  # one stretch of one document
        count += int(distinct)
    assert count == len(batch.sources)


@settings(deadline=None, max_examples=100)
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=200), seed=st.none() | st.integers(0, 9))
def test_rows_hold_every_piece_and_are_well_filled(counts: list[int], seed: int | None) -> None:
    sizes = np.array(counts, np.int32)
    plan = pack(sizes, 50, None if seed is None else np.random.default_rng(seed))
    assert sorted(plan.pieces.tolist()) == list(range(len(counts)))
    rows = [int(sizes[plan.pieces[a:b]].sum()) for a, b in zip(plan.starts, plan.starts[1:], strict=False)]
    assert max(rows) <= 50
    # Best fit leaves at most one row half empty, so it takes at most twice the fewest rows (here: +1).
    assert sum(row <= 25 for row in rows) <= 1


def test_packing_is_close_to_what_is_possible() -> None:
    sizes = np.random.default_rng(0).integers(5, 257, 2 * WINDOW + 100).astype(np.int32)
    plan = pack(sizes, 256, np.random.default_rng(1))
    assert sizes.sum() / (256 * len(plan)) > 0.99


def test_a_later_version_resumes_with_the_same_rows() -> None:
    """A run may be resumed years later, so the packing must not change by accident."""
    sizes = np.arange(8192 + 500, dtype=np.int32) * 7919 % 252 + 5
    plan = pack(sizes, 256)
    assert sorted(plan.pieces[:8192].tolist()) == list(range(8192)), "packed 8,192 pieces at a time"
    assert 8192 in plan.starts, "and no row reaches into the next ones"
    assert len(plan) == 4434 and plan.pieces[:4].tolist() == [73, 325, 577, 829]


def test_any_batch_again_from_its_numbers(tmp_path: Path) -> None:
    """Another process with the seed has the same batches; another epoch or seed has others."""
    data = opened(TASKS, cache=tmp_path)
    first = PackedSampler(data.train, 4, 128, seed=3)
    whole = [batches(first, epoch) for epoch in (0, 1)]
    for epoch, index in ((1, 5), (0, 2), (1, 0)):
        again = PackedSampler(opened(TASKS, cache=tmp_path).train, 4, 128, seed=3).batch(epoch, index)
        for name in ("tokens", "targets", "positions", "documents"):
            assert np.array_equal(getattr(again, name), getattr(whole[epoch][index], name))
        assert again.sources == whole[epoch][index].sources
    other = PackedSampler(data.train, 4, 128, seed=4).batch(0, 0)
    assert whole[0][0].sources != whole[1][0].sources != other.sources
    learned = [sum(np.count_nonzero(batch.targets != IGNORED) for batch in epoch) for epoch in whole]
    assert learned[0] == learned[1] == opened(TASKS, cache=tmp_path, length=128).report.trained_tokens


def test_without_shuffling_every_epoch_is_alike(tmp_path: Path) -> None:
    sampler = PackedSampler(opened(TASKS, cache=tmp_path).validation, 2, 64, seed=0, shuffle=False)
    assert [b.sources for b in batches(sampler, 0)] == [b.sources for b in batches(sampler, 5)]


def test_a_long_text_is_cut_at_paragraphs_and_loses_nothing(tmp_path: Path) -> None:
    data = opened(SHAKESPEARE, cache=tmp_path, length=256)
    pieces = PackedSampler(data.train, 4, 256, seed=0).pieces
    start, end = (int(column[0]) for column in data.train.fields("start", "end"))
    assert pieces.first[0] == start and pieces.first[-1] + pieces.count[-1] == end - 1
    assert (pieces.first[1:] == pieces.first[:-1] + pieces.count[:-1]).all()  # without gap or overlap
    assert pieces.count.max() <= 256 and pieces.count[:-1].min() >= 256 - 256 // 8
    ends = [data.train.store.ids[first] for first in pieces.first[1:]]
    at_lines = sum(byte_level().token_bytes(int(id_)).endswith(b"\n") for id_ in ends)
    assert at_lines > 0.9 * len(ends)
    assert PackedSampler(data.train, 4, 256, seed=0).fill() > 0.93


def test_batches_are_as_narrow_as_they_can_be(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "short"}, {"text": "a little longer"}])
    sampler = PackedSampler(opened(path, validation=0).train, 4, 1024, seed=0)
    batch = sampler.batch(0, 0)
    assert batch.tokens.shape == (1, 16)
    assert sampler.batches_per_epoch(0) == 1
    with pytest.raises(BadInput, match="epoch 0 has 1 batches, got index 1"):
        sampler.batch(0, 1)
    with pytest.raises(BadInput, match="batch_size must be at least 1"):
        PackedSampler(sampler.examples, 0, 16, seed=0)


def test_the_old_name_of_the_sampler_warns() -> None:
    from pophood.train import data

    with pytest.warns(DeprecationWarning, match="Order is now PackedSampler"):
        assert data.Order is PackedSampler
