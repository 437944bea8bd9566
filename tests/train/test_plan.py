"""The plan: minutes to steps, memory that is watched, and refusals that say what to change."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pophood.errors import OutOfMemory
from pophood.train import plan as plans
from pophood.train.plan import evaluating_pace_of, refuse_unfit, remedies, schedule, sizes_of
from pophood.train.settings import TrainSettings
from pophood.train.world import ALONE
from tests import processes
from tests.needs import linux
from tests.tiny import gpt2_config, tiny_config


class Batches:
    def batches_per_epoch(self, epoch: int) -> int:
        return 10


class FakeTrainer:
    """A trainer of which each step takes a second."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings, self.steps, self.step, self.validation = settings, 0, 0, None
        self.train, self.model, self.world = Batches(), self, ALONE
        self.trained: dict[str, Any] = {}
        self.trunks, self.learner, self.shard = None, self, False

    def parameters(self) -> list[Any]:
        return []

    def seconds_per_step(self) -> float:
        return 1.0

    def plan_steps(self) -> int:
        return self.settings.steps or 7


class FakeTuning:
    def __init__(self, settings: TrainSettings, out: Path) -> None:
        self.settings, self.out, self.before, self.seconds = settings, out, None, 10.0


def planned(settings: TrainSettings, out: Path) -> Any:
    trainer: Any = FakeTrainer(settings)
    tuning: Any = FakeTuning(settings, out)
    return schedule(trainer, tuning)


def test_minutes_become_the_steps_that_fit(tmp_path: Path) -> None:
    plan = planned(TrainSettings(minutes=5), tmp_path / "out")
    assert plan.steps == int(300 * 0.98 - 10 - plan.reserve)
    assert plan.epochs == pytest.approx(plan.steps / 10)
    assert plan.seconds <= 300
    assert plan.seconds == pytest.approx(300, abs=8)


def test_steps_and_epochs_stay_as_they_are(tmp_path: Path) -> None:
    assert planned(TrainSettings(steps=12), tmp_path / "out").steps == 12
    assert planned(TrainSettings(epochs=1), tmp_path / "out").steps == 7
    assert planned(TrainSettings(minutes=0.01), tmp_path / "out").steps == 1


def test_evaluations_after_the_first_find_what_a_trunk_has_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = FakeTrainer(TrainSettings(method="last"))
    trainer.validation = SimpleNamespace(batch=lambda epoch, index: None, batches_per_epoch=lambda epoch: 4)
    trainer.tensors = lambda batch, held: time.sleep(0.05)
    monkeypatch.setattr("pophood.train.step.evaluate", lambda learner, batches: time.sleep(0.02))
    alone = evaluating_pace_of(trainer)
    assert alone.first == alone.later >= 4 * 0.07
    for share in (1.0, 0.5):
        trainer.trunks = SimpleNamespace(validation=SimpleNamespace(share=share))
        pace = evaluating_pace_of(trainer)
        assert pace.first - pace.later >= 4 * share * 0.05
        assert pace.later >= 4 * (0.02 + (1 - share) * 0.05)
        assert pace.seconds(3) == pytest.approx(pace.first + 2 * pace.later)


def test_a_run_that_cannot_fit_is_refused_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    config = gpt2_config("gpt2")
    settings = TrainSettings(method="full", batch_size=4, accumulation=2)
    refuse_unfit(config, replace(settings, batch_size=1, length=16))
    monkeypatch.setattr(plans, "available_memory", lambda: 2**30)
    with pytest.raises(OutOfMemory) as raised:
        refuse_unfit(config, settings)
    words = str(raised.value)
    assert "\n" not in words
    assert "1.00 GiB is free" in words
    for change in ("--batch-size 2 --accumulation 4", "--recompute", "--method lora", "--length 128"):
        assert change in words
    assert "--method lora" not in "".join(remedies(TrainSettings()))


def test_the_first_estimate_knows_what_learns() -> None:
    """GPT-2 small: 124 million parameters of 4 bytes, moments twice that; LoRA r=8 about 1.2 million."""
    config = gpt2_config("gpt2")
    settings = TrainSettings(precision="f32")
    full = sizes_of(config, replace(settings, method="full"))
    assert full.weights == full.gradients == 4 * 124_439_808
    assert full.moments == 2 * full.weights
    lora = sizes_of(config, settings)
    assert lora.gradients / 4 == 12 * 8 * (4 * 2 * 768 + 2 * (768 + 3072))
    last = sizes_of(config, replace(settings, method="last", last_blocks=4))
    assert last.gradients == pytest.approx(4 * 4 * 7_087_872, rel=0.02)
    assert sizes_of(config, replace(settings, recompute=True)).activations < lora.activations / 2.5
    halves = sizes_of(config, TrainSettings(method="full", precision="bf16"))
    assert halves.weights == full.weights  # two halves
    assert halves.gradients == full.gradients / 2
    assert halves.moments == full.moments / 2
    assert sizes_of(config, TrainSettings(precision="bf16")).weights == 2 * 124_439_808
    assert math.isfinite(sizes_of(tiny_config("llama"), TrainSettings()).total)


def test_the_peak_is_seen_even_if_it_is_gone() -> None:
    """In a process of its own: this one may hold gigabytes of other tests that come and go."""
    linux()
    program = (
        "import numpy as np\n"
        "from pophood.train.plan import PeakMemory\n"
        "with PeakMemory(0.005) as peak:\n"
        "    before = peak.now\n"
        "    block = np.ones(30_000_000, np.float32)\n"  # 120 MB
        "    for _ in range(40): block += 1\n"
        "    del block\n"
        "assert peak.bytes - before > 110_000_000, (before, peak.bytes)\n"
        "assert peak.now < peak.bytes - 110_000_000, (peak.now, peak.bytes)\n"
    )
    processes.run([sys.executable, "-c", program], check=True)
