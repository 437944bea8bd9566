"""Resuming gives the bits of a run that was never stopped, wherever it was stopped."""

from __future__ import annotations

import functools
import random
from itertools import pairwise
from pathlib import Path

import pytest

from pophood.train.checkpoint.save_load import latest, load
from pophood.train.events import Evaluated, Event, Finished, Step
from pophood.train.loop.trainer import Trainer
from tests.train.hashes import saved_hash, state_hash
from tests.train.small import Case, trainer_of

CASES = {
    "full": Case(),
    "full-dropout": Case(dropout=0.1),
    "full-accumulated": Case(family="llama", accumulation=4, steps=8),
    "full-everything": Case(dropout=0.2, accumulation=2, recompute=True),
    "full-patience": Case(family="llama", patience=2, rate=1.0, steps=16),
    "lora": Case("lora", "llama"),
    "lora-dropout": Case("lora", "qwen3", dropout=0.1, accumulation=2),
    "lora-recomputed": Case("lora", dropout=0.1, recompute=True),
    "last": Case("last", dropout=0.1, accumulation=3),
}
STOPS = 7  # of each case; 2 in CI


class After:
    """Requests a stop at the n-th question: between steps, inside a step, or inside an evaluation."""

    def __init__(self, questions: int | None = None) -> None:
        self.asked, self.questions = 0, questions

    def __call__(self) -> str | None:
        self.asked += 1
        return "stopped" if self.asked == self.questions else None


def told(events: list[Event]) -> list[tuple[object, ...]]:
    """Return the fields of events that must be equal: all but times and paths."""
    told: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, Step):
            told.append((event.step, event.loss, event.gradient, event.learning_rate, event.epoch))
        elif isinstance(event, Evaluated):
            told.append((event.step, event.loss, event.best))
    return told


@functools.cache
def uninterrupted(case: Case, data: Path) -> tuple[Trainer, list[Event], int]:
    asked = After()
    trainer = trainer_of(case, data, should_stop=asked)
    return trainer, list(trainer.run()), asked.asked


def check(case: Case, data: Path, out: Path, stops: tuple[int, ...]) -> None:
    """Stop at each question in turn, resume in a new trainer each time, and compare the end."""
    whole, events, _ = uninterrupted(case, data)
    wanted, found = told(events), []
    for number, stop in enumerate((*stops, None)):
        trainer = trainer_of(case, data, out=out, should_stop=After(stop))
        if number:
            path = latest(out, pytest.fail)
            assert path is not None
            trainer.restore(*load(path))
            assert state_hash(trainer.state()) == saved_hash(path)
        heard = list(trainer.run())
        found += told(heard)
        last = heard[-1]
        assert isinstance(last, Finished)
        assert (last.reason == "stopped") == (stop is not None)
    assert state_hash(trainer.state()) == state_hash(whole.state())
    assert found == wanted
    timeless = {"seconds": None}
    assert trainer.state()[1] | timeless == whole.state()[1] | timeless


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def stops_of(name: str, data: Path, count: int) -> list[int]:
    """Return questions spread over the whole run; if there are many, with the first and the last."""
    _, _, asked = uninterrupted(CASES[name], data)
    chosen = random.Random(name)
    edges = [1 + (asked - 1) * i // count for i in range(count + 1)]
    return [chosen.randint(low + 1, high) for low, high in pairwise(edges)]


@pytest.mark.parametrize("name", CASES)
def test_twice_stopped(name: str, data: Path, tmp_path: Path) -> None:
    first, second = stops_of(name, data, 2)
    check(CASES[name], data, tmp_path / "out", (first, max(1, second - first)))


@pytest.mark.full
@pytest.mark.parametrize("number", range(STOPS))
@pytest.mark.parametrize("name", CASES)
def test_wherever_it_is_stopped(name: str, number: int, data: Path, tmp_path: Path) -> None:
    check(CASES[name], data, tmp_path / "out", (stops_of(name, data, STOPS)[number],))


def test_the_cases_cross_epochs_and_stop_everywhere(data: Path) -> None:
    """The runs of the tests above do contain the cases that they are about."""
    trainer, events, asked = uninterrupted(CASES["full-accumulated"], data)
    assert trainer.epoch >= 3
    assert trainer.train.batches_per_epoch(0) % 4  # a step reads from two epochs
    assert asked > 4 * sum(isinstance(event, Step) for event in events)
    _, events, _ = uninterrupted(CASES["full-patience"], data)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "no better"


def test_other_settings_or_seeds_give_other_bits(data: Path) -> None:
    hashes = set()
    for changes in ({}, {"seed": 1}, {"learning_rate": 1e-3}, {"dropout": 0.0, "accumulation": 2}):
        trainer = trainer_of(CASES["full-dropout"], data, **changes)
        list(trainer.run())
        hashes.add(state_hash(trainer.state()))
    assert len(hashes) == 4


def test_a_finished_run_resumes_to_its_end(data: Path, tmp_path: Path) -> None:
    case = CASES["lora"]
    trainer = trainer_of(case, data, out=tmp_path)
    list(trainer.run())
    path = latest(tmp_path, pytest.fail)
    assert path is not None
    again = trainer_of(case, data, out=tmp_path)
    again.restore(*load(path))
    assert [type(event).__name__ for event in again.run()] == ["Started", "Finished"]
    assert state_hash(again.state()) == state_hash(trainer.state()) == saved_hash(path)
