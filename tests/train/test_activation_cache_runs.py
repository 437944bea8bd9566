"""The activation cache in whole runs: it stays until they are complete, and is reused or rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pophood
from pophood.model.lm import LM
from pophood.train.data import DataOptions
from pophood.train.events import Noted, Step
from pophood.train.loop.clock import Pace
from pophood.train.settings import TrainSettings
from pophood.train.tune import Tuning
from tests.tiny import tiny_folder
from tests.train.test_activation_cache import TEXT, leave, lose, losses


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    folder = tmp_path_factory.mktemp("model") / "gpt2"
    tiny_folder(folder, "gpt2")
    return pophood.load(folder, threads=1)


@pytest.fixture
def start(lm: LM, tmp_path: Path) -> Callable[..., Tuning]:
    notes = tmp_path / "notes.txt"
    notes.write_text(TEXT, encoding="utf-8")
    small = TrainSettings(
        "last", last_blocks=1, epochs=3, batch_size=2, length=32, learning_rate=5e-3, evaluations=2
    )

    def begin(out: str, **changes: Any) -> Tuning:
        run = {key: changes.pop(key) for key in ("should_stop", "resume") if key in changes}
        settings = None if "resume" in run else replace(small, **changes)
        return Tuning(lm, notes, tmp_path / out, settings, DataOptions(cache=tmp_path / "cache"), **run)

    return begin


def test_a_run_keeps_states_until_it_is_complete(start: Callable[..., Tuning]) -> None:
    tuning = start("out")
    sizes = [
        (tuning.out / "trunk" / "train.rows").stat().st_size for event in tuning if isinstance(event, Step)
    ]
    assert tuning.plan is not None
    assert tuning.plan.epochs == 3
    per_epoch = len(sizes) // 3
    assert sizes == sorted(sizes)
    assert 0 < sizes[0] < sizes[per_epoch - 1] == sizes[-1]
    assert not (tuning.out / "trunk").exists()
    assert tuning.settings.cache_limit is not None
    said = (tuning.out / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert any('"event": "noted"' in line and "so later epochs skip" in line for line in said)


def test_a_stopped_run_goes_on_with_the_states_or_without(start: Callable[..., Tuning]) -> None:
    whole = list(start("whole"))
    for out, harm in (("kept", leave), ("lost", lose)):
        steps: list[int] = []
        stopped = start(out, should_stop=lambda steps=steps: "stopped" if len(steps) >= 14 else None)
        for event in stopped:
            steps += [1] if isinstance(event, Step) else []
        assert (stopped.out / "trunk" / "train.rows").is_file()
        harm(stopped.out / "trunk")
        resumed = start(out, resume=True)
        after = losses(list(resumed))
        assert after[1:] == losses(whole)[-len(after) + 1 :]
        assert len(after) > 10
        weights = (resumed.out / "model.safetensors").read_bytes()
        assert weights == (resumed.out.parent / "whole" / "model.safetensors").read_bytes()
        assert not (resumed.out / "trunk").exists()


def test_nothing_is_kept_where_it_is_not_wanted_or_of_no_use(start: Callable[..., Tuning]) -> None:
    for event in (without := start("without", cache_limit=0.0)):
        assert not (without.out / "trunk").exists(), event
    once = start("once", epochs=1)
    for event in once:
        assert not isinstance(event, Noted)
        assert not (once.out / "trunk" / "train.rows").exists()
    assert once.plan is not None
    assert not (once.out / "trunk").exists()
    # The first epoch has the bits of a run without a cache, because states are computed with its batches.
    plain = losses(list(start("plain", epochs=1, cache_limit=0.0)))
    assert losses(list(start("again", epochs=1))) == plain


def test_the_first_epoch_is_planned_with_its_own_pace() -> None:
    pace = Pace(first=2.0, later=1.0, early=10)
    assert pace.seconds(4) == 8.0
    assert pace.seconds(15) == 25.0
    for steps in (1, 4, 10, 11, 40):
        assert pace.steps(pace.seconds(steps) + 0.01) == steps
    assert pace.steps(-1.0) == 0
    assert Pace(first=1.0, later=1.0, early=0).steps(7.5) == 7
