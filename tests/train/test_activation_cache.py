"""The activation cache: its states are the model's, depend on the data alone, and survive disk faults."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pophood.errors import BadInput
from pophood.train.checkpoint.save_load import latest, load
from pophood.train.events import Evaluated, Event, Finished, Noted, Step
from pophood.train.loop import chunk_store as states
from pophood.train.loop.activation_cache import ActivationCache, ActivationCaches, first_trained_block
from pophood.train.loop.trainer import Trainer
from pophood.train.model.loss import hidden_states
from pophood.train.model.precision import to_bf16
from pophood.train.settings import TrainSettings
from tests.train.hashes import state_hash
from tests.train.small import Case, trainer_of

LAST = Case("last")
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


OPENED: list[ActivationCaches] = []


@pytest.fixture(autouse=True)
def closed_again() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def with_cache(trainer: Trainer, folder: Path | None, gib: float = 1.0) -> Trainer:
    train: Any = trainer.train
    held: Any = trainer.validation
    settings = trainer.settings
    if settings.method == "last":
        settings = replace(settings, cache_limit=gib)
    trainer.caches = ActivationCaches.of(trainer.model, train, held, settings)
    if trainer.caches is not None and folder is not None:
        trainer.caches.open(folder, several_epochs=True)
        OPENED.append(trainer.caches)
    return trainer


def cache_of(trainer: Trainer) -> ActivationCache:
    assert trainer.caches is not None
    return trainer.caches.train


def epoch(trainer: Trainer, number: int) -> dict[int, bytes]:
    """Return the bytes of the states of every piece in the batches of an epoch."""
    found = {}
    for index in range(trainer.train.batches_per_epoch(number)):
        batch = trainer.train.batch(number, index)
        known = trainer.tensors(batch).states
        assert known is not None
        flat = known.flatten(0, 1)[torch.from_numpy(batch.documents.flatten() >= 0)]
        at = 0
        for piece in batch.pieces:
            count = int(cache_of(trainer).pieces.count[piece])
            found[piece] = flat[at : at + count].contiguous().view(torch.uint8).numpy().tobytes()
            at += count
    return found


def count_lowest(trainer: Trainer) -> list[int]:
    """Count how often the lowest block runs."""
    calls: list[int] = []
    trainer.model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    return calls


# The states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_states_are_what_the_lower_blocks_compute(data: Path, tmp_path: Path, family: str) -> None:
    trainer = with_cache(trainer_of(replace(LAST, family=family), data), tmp_path)
    for number in (0, 1):
        for index in range(trainer.train.batches_per_epoch(number)):
            batch = trainer.train.batch(number, index)
            tensors = trainer.tensors(batch)
            assert tensors.states is not None
            assert tensors.first == len(trainer.model.blocks) - 1 > 0
            with torch.no_grad():
                theirs = trainer.model(tensors.tokens, tensors.positions, tensors.spans)
                ours = hidden_states(trainer.model, tensors)
            real = torch.from_numpy(batch.documents >= 0)
            torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)
            assert bool(ours.isfinite().all())


def test_bits_do_not_depend_on_the_batch_or_on_what_is_kept(data: Path, tmp_path: Path) -> None:
    kept = with_cache(trainer_of(LAST, data), tmp_path)
    first = epoch(kept, 0)
    assert epoch(kept, 1) == first
    assert epoch(kept, 2) == first
    assert epoch(with_cache(trainer_of(LAST, data), None), 1) == first, "nothing kept"
    assert epoch(with_cache(trainer_of(LAST, data), tmp_path / "new"), 2) == first, "filled by another epoch"


def test_the_lower_blocks_compute_in_the_first_epoch_alone(data: Path, tmp_path: Path) -> None:
    trainer = with_cache(trainer_of(LAST, data), tmp_path)
    calls = count_lowest(trainer)
    epoch(trainer, 0)
    assert len(calls) == trainer.train.batches_per_epoch(0)
    epoch(trainer, 1)
    again = with_cache(trainer_of(LAST, data), tmp_path)
    more = count_lowest(again)
    epoch(again, 2)
    assert len(calls) == trainer.train.batches_per_epoch(0)
    assert not more, "another process has them too"
    plain = trainer_of(LAST, data)
    plain_calls = count_lowest(plain)
    list(plain.run())
    kept_calls = count_lowest(trainer)
    list(trainer.run())
    assert trainer.validation is not None
    held = trainer.validation.batches_per_epoch(0)
    assert len(kept_calls) == held, "validation batches once, not at each evaluation"
    assert len(plain_calls) > 4 * held


def test_a_cache_has_no_dropout(data: Path, tmp_path: Path) -> None:
    trainer = with_cache(trainer_of(replace(LAST, dropout=0.5), data), tmp_path)
    assert trainer.model.training
    assert epoch(trainer, 0) == epoch(with_cache(trainer_of(LAST, data), None), 0)
    assert trainer.model.training
    assert trainer.caches is not None
    assert any("dropout" in remark for remark in trainer.caches.messages)


def test_a_run_in_bfloat16_keeps_half_the_bytes(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(LAST, data)
    to_bf16(trainer.model)
    with_cache(trainer, tmp_path)
    cache = cache_of(trainer)
    assert cache.dtype == torch.bfloat16
    assert cache.row_bytes == 2 * trainer.model.config.n_embd
    assert epoch(trainer, 0) == epoch(trainer, 1)
    assert (tmp_path / "train.rows").stat().st_size == cache.bytes == cache.needed


def test_only_frozen_blocks_are_cached(data: Path) -> None:
    for case in (Case("full"), Case("lora")):
        trainer = with_cache(trainer_of(case, data), None)
        assert trainer.caches is None
        assert first_trained_block(trainer.model) == 0
    assert with_cache(trainer_of(LAST, data), None, gib=0.0).caches is None
    with pytest.raises(BadInput, match="cache_limit must be at least 0"):
        TrainSettings("last", cache_limit=-1.0)


def test_beyond_the_limit_states_are_computed_each_time(data: Path, tmp_path: Path) -> None:
    whole = with_cache(trainer_of(LAST, data), None)
    assert whole.caches is not None
    held = whole.caches.validation
    assert held is not None
    limit = (held.needed + cache_of(whole).needed * 0.6) / 2**30
    trainer = with_cache(trainer_of(LAST, data), tmp_path, limit)
    assert trainer.caches is not None
    assert 0 < cache_of(trainer).share < 0.6
    assert trainer.caches.bytes <= limit * 2**30
    assert any("--cache-limit" in remark for remark in trainer.caches.messages)
    exact = epoch(whole, 0)
    for number in (0, 1):
        found = epoch(trainer, number)
        assert found == epoch(with_cache(trainer_of(LAST, data), None, limit), number), "the same bits"
        same = sum(found[piece] == exact[piece] for piece in exact)
        assert same >= cache_of(trainer).share * len(exact) / 2
        for piece in exact:
            ours, theirs = (np.frombuffer(x, np.float32) for x in (found[piece], exact[piece]))
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (tmp_path / "train.rows").stat().st_size == cache_of(trainer).bytes


# Faults -----------------------------------------------------------------------------------------------


def damage_rows(folder: Path) -> None:
    rows = bytearray((folder / "train.rows").read_bytes())
    rows[len(rows) // 2] ^= 1
    (folder / "train.rows").write_bytes(rows)


def cut_rows(folder: Path) -> None:
    rows = (folder / "train.rows").read_bytes()
    (folder / "train.rows").write_bytes(rows[: len(rows) // 3])


def damage_marks(folder: Path) -> None:
    marks = bytearray((folder / "train.marks").read_bytes())
    marks[0] ^= 1
    (folder / "train.marks").write_bytes(marks)


def damage_facts(folder: Path) -> None:
    (folder / "train.facts").write_bytes(b"{")


@pytest.mark.parametrize("harm", [damage_rows, cut_rows, damage_marks, damage_facts])
def test_what_is_damaged_is_made_again_aloud(
    data: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    before = with_cache(trainer_of(LAST, data), tmp_path)
    first = epoch(before, 0)
    assert before.caches is not None
    before.caches.close()
    harm(tmp_path)
    after = with_cache(trainer_of(LAST, data), tmp_path)
    assert epoch(after, 1) == first
    assert after.caches is not None
    assert any("damaged" in remark for remark in after.caches.messages)
    third = with_cache(trainer_of(LAST, data), tmp_path)
    calls = count_lowest(third)
    assert epoch(third, 1) == first
    assert not calls, "and is whole again"


def test_states_of_other_weights_are_thrown_away_aloud(data: Path, tmp_path: Path) -> None:
    first = epoch(with_cache(trainer_of(LAST, data), tmp_path), 0)
    other = trainer_of(LAST, data)
    with torch.no_grad():
        other.model.get_parameter("blocks.0.mlp.up.weight")[0, 0] += 1.0
    found = epoch(with_cache(other, tmp_path), 0)
    assert found != first
    assert other.caches is not None
    assert any("for other weights" in remark for remark in other.caches.messages)
    upper = trainer_of(LAST, data)
    with torch.no_grad():
        last = len(upper.model.blocks) - 1
        upper.model.get_parameter(f"blocks.{last}.mlp.up.weight")[0, 0] += 1.0
    (tmp_path / "b").mkdir()
    epoch(with_cache(trainer_of(LAST, data), tmp_path / "b"), 0)
    calls = count_lowest(upper)
    with_cache(upper, tmp_path / "b")
    calls.clear()
    assert epoch(upper, 1) == first
    assert not calls, "what learns has no part in it"


def test_a_full_disk_ends_the_keeping_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, wrote = states._write_at, []

    def full(file: Any, at: int, content: memoryview) -> None:
        wrote.append(len(content))
        if sum(wrote) > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(file, at, content)

    monkeypatch.setattr(states, "_write_at", full)
    trainer = with_cache(trainer_of(LAST, data, steps=20), tmp_path)
    events = list(trainer.run())
    assert isinstance(events[-1], Finished)
    said = [event.text for event in events if isinstance(event, Noted)]
    assert sum("cannot cache more hidden states" in text for text in said) == 1, said
    assert events[-1].step == 20
    free = trainer_of(LAST, data, steps=20)
    for ours, theirs in zip(losses(events), losses(list(free.run())), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_folder_that_cannot_be_written_is_said(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    trainer = with_cache(trainer_of(LAST, data, steps=3), tmp_path / "file" / "trunk")
    events = list(trainer.run())
    assert any(isinstance(event, Noted) and "cannot cache the output" in event.text for event in events)
    assert isinstance(events[-1], Finished)


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, (Step, Evaluated))]


# Resuming ---------------------------------------------------------------------------------------------


def leave(_: Path) -> None:
    pass


def lose(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize("harm", [leave, lose, damage_rows, damage_facts])
def test_resuming_gives_the_same_bits(data: Path, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    case = replace(LAST, steps=24, dropout=0.1, accumulation=2)
    whole = with_cache(trainer_of(case, data), tmp_path / "whole")
    wanted = losses(list(whole.run()))
    seen: list[int] = []
    trainer = with_cache(
        trainer_of(
            case, data, out=tmp_path / "out", should_stop=lambda: "stopped" if len(seen) > 12 else None
        ),
        tmp_path / "trunk",
    )
    found = []
    for event in trainer.run():
        found += losses([event])
        seen += [1] if isinstance(event, Step) else []
    assert trainer.epoch > 0, "the cache is in use"
    assert trainer.caches is not None
    trainer.caches.close()
    harm(tmp_path / "trunk")
    path = latest(tmp_path / "out", pytest.fail)
    assert path is not None
    resumed = with_cache(trainer_of(case, data, out=tmp_path / "out"), tmp_path / "trunk")
    resumed.restore(*load(path))
    found += losses(list(resumed.run()))
    assert found == wanted
    assert state_hash(resumed.state()) == state_hash(whole.state())
