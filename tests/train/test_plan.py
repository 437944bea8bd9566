"""The plan: steps from minutes, measured memory, and refusals that say what to change."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pophood.errors import BadInput, OutOfMemory
from pophood.train.checkpoint.save_load import latest, load, save
from pophood.train.events import Step
from pophood.train.loop.clock import Pace
from pophood.train.loop.optimizer import make_optimizer
from pophood.train.loop.trainer import Trainer
from pophood.train.model.attention import WHOLE
from pophood.train.model.precision import load_f32, to_bf16
from pophood.train.model.transformer import Model
from pophood.train.run import plan as plans
from pophood.train.run import timing
from pophood.train.run.plan import (
    CHECKPOINTS,
    Plan,
    Timed,
    batches_in,
    checkpoint_bytes,
    estimate_memory,
    refuse_unfit,
    remedies,
    schedule,
)
from pophood.train.run.timing import evaluation_pace
from pophood.train.settings import TrainSettings
from tests import processes
from tests.needs import linux
from tests.tiny import Values, gpt2_config, tiny_config
from tests.train.disk import Operation, watched
from tests.train.small import Case, trainer_of

SECOND = Pace(1.0, 1.0, 0)
MIB = 2**20


def timings(evaluation: float = 0.0) -> Timed:
    """Return timings: 1 s per step, 100 MiB at the peak, 4 s for measuring the model."""
    pace = Pace(evaluation, evaluation, 1)
    return Timed(SECOND, pace, 100 * MIB, 60 * MIB, rough=False, measuring=4.0)


def planned(trainer: Trainer, out: Path, *, evaluation: float = 0.0) -> Plan:
    """Return the plan of a run that began 10 s ago."""
    return schedule(trainer, timings(evaluation), out, lambda: 10.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def bf16_trainer(case: Case, data: Path, **changes: Any) -> Trainer:
    """Return a trainer whose model multiplies in bfloat16."""
    trainer = trainer_of(case, data, **changes)
    to_bf16(trainer.model)
    trainer.optimizer = make_optimizer(trainer.model, trainer.settings)
    return trainer


def numbers(trainer: Trainer) -> int:
    return sum(parameter.numel() for parameter in trainer.trained.values())


def test_minutes_become_the_steps_that_fit(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(Case(), data, steps=None, minutes=5)
    plan = planned(trainer, tmp_path / "out")
    kept = 12 * numbers(trainer) / 400e6
    result = 4 * sum(p.numel() for p in trainer.model.parameters()) / 400e6
    assert plan.reserve == pytest.approx(4 + 2 + kept + result), "measures, writing, checkpoint and result"
    on_the_way = (plan.evaluations - 1) * (kept + 4 * 0.25)
    assert plan.evaluations == 4, "as the settings have it"
    assert plan.steps == int(300 * 0.98 - 10 - plan.reserve - on_the_way + 0.5)
    assert plan.epochs == pytest.approx(plan.steps / trainer.train.batches_per_epoch(0))
    assert plan.seconds == pytest.approx(300 * 0.98, abs=1)


def test_evaluations_have_a_share_of_the_minutes(data: Path, tmp_path: Path) -> None:
    """One evaluation may take 2 % of 300 s, and all before the end 10 %."""
    trainer = trainer_of(Case(), data, steps=None, minutes=5, evaluations=50)
    assert trainer.validation is not None
    plan = planned(trainer, tmp_path / "out", evaluation=1.5)
    least = 2048 // (3 * 32)  # batches
    assert batches_in(300, trainer, timings(1.5)) == min(least, int(0.04 * 300 / 1.5)) == 8
    each = 1.5 * trainer.validation.batches_per_epoch(0) + 4 * 0.25 + plan.seconds_per_save
    assert plan.evaluations == 1 + int(30 / each)


def test_steps_and_epochs_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(Case(), data, steps=12)
    assert planned(trainer, tmp_path / "out").steps == 12
    assert trainer.clock is None
    epochs = trainer_of(Case(), data, steps=None, epochs=3)
    assert planned(epochs, tmp_path / "out").steps == 3 * epochs.train.batches_per_epoch(0)
    assert planned(trainer_of(Case(), data, steps=None, minutes=0.01), tmp_path / "out").steps == 1


CASES = {"full": Case(), "lora": Case("lora", "llama"), "last": Case("last")}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_the_sum_of_what_is_there(name: str, precision: str, data: Path, tmp_path: Path) -> None:
    """Memory is the measured peak and two moments, plus 5 %; disk is three checkpoints and the result."""
    make = trainer_of if precision == "f32" else bf16_trainer
    trainer = make(CASES[name], data, steps=2)
    n, whole = numbers(trainer), sum(parameter.numel() for parameter in trainer.model.parameters())
    assert n > 3_000
    wide = precision == "f32" or name == "lora"  # LoRA's own matrices are float32
    plan = planned(trainer, tmp_path / "out")
    assert plan.memory == int((100 * MIB + 2 * n * (4 if wide else 2)) * 1.05)
    kept = n * (4 + 4 + 4 if wide else 2 + 2 + 2 + 2)  # weights, their lower halves, two moments
    assert plan.disk == 3 * kept + 4 * (n if name == "lora" else whole)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_has_the_bytes_that_were_planned(
    name: str, precision: str, data: Path, tmp_path: Path
) -> None:
    make = trainer_of if precision == "f32" else bf16_trainer
    trainer = make(CASES[name], data, steps=2, evaluations=1, out=tmp_path / "out")
    planned_bytes = checkpoint_bytes(trainer)
    list(trainer.run())
    path = latest(tmp_path / "out", pytest.fail)
    assert path is not None
    tensors, _ = load(path)
    assert sum(tensors[name].nbytes for name in tensors if name != "random") == planned_bytes
    written = sum(file.stat().st_size for file in path.iterdir())
    assert planned_bytes < written < planned_bytes + 40_000, "headers, facts and the random state"


def test_three_checkpoints_are_on_the_disk_while_the_third_is_written(data: Path, tmp_path: Path) -> None:
    """The plan counts one more checkpoint than stays."""
    trainer, most = trainer_of(Case(steps=6), data), 0

    def count(operation: Operation) -> None:
        nonlocal most
        if tmp_path.exists():
            sizes = [sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in tmp_path.iterdir()]
            most = max(most, sum(sizes))

    with watched(count):
        for event in trainer.run():
            if isinstance(event, Step):
                save(tmp_path, trainer.state(), CHECKPOINTS)
    assert 2.9 * checkpoint_bytes(trainer) < most < 3.0 * checkpoint_bytes(trainer) + 120_000


def test_evaluations_after_the_first_use_the_activation_cache(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: Any = trainer_of(Case(), data)
    monkeypatch.setattr(trainer, "tensors", lambda batch, held_out: time.sleep(0.05))

    def losses_of(*_: Any) -> tuple[float, int]:
        time.sleep(0.02)
        return 1.0, 1

    monkeypatch.setattr(timing, "losses_of", losses_of)
    alone = evaluation_pace(trainer)
    assert alone.first == alone.later >= 0.07
    assert trainer.known_losses == (1.0, 1)
    for share in (1.0, 0.5):
        trainer.caches = SimpleNamespace(validation=SimpleNamespace(share=share))
        pace = evaluation_pace(trainer)
        assert pace.first - pace.later >= share * 0.05
        assert pace.later >= 0.02 + (1 - share) * 0.05
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
    full = estimate_memory(config, replace(settings, method="full"))
    assert full.weights == full.gradients == 4 * 124_439_808
    assert full.moments == 2 * full.weights
    lora = estimate_memory(config, settings)
    assert lora.gradients / 4 == 12 * 8 * (4 * 2 * 768 + 2 * (768 + 3072))
    last = estimate_memory(config, replace(settings, method="last", last_blocks=4))
    assert last.gradients == pytest.approx(4 * 4 * 7_087_872, rel=0.02)
    assert estimate_memory(config, replace(settings, recompute=True)).activations < lora.activations / 2.5
    halves = estimate_memory(config, TrainSettings(method="full", precision="bf16"))
    assert halves.weights == full.weights  # two halves
    assert halves.gradients == full.gradients / 2
    assert halves.moments == full.moments / 2
    assert estimate_memory(config, TrainSettings(precision="bf16")).weights == 2 * 124_439_808
    assert math.isfinite(estimate_memory(tiny_config("llama"), TrainSettings()).total)


def test_activations_by_hand() -> None:
    """GPT-2 small, 4 x 256 tokens: a block keeps 7 C + 4 C + 3 F numbers of a token in float32, 4 C + 2 C + F
    in bfloat16, where norms and the feed-forward's inside are computed again; C = 768, F = 4 C. Beside them
    the stream before each of 12 blocks, one feed-forward on the way back, and 2^25 numbers of the loss."""
    config, c = gpt2_config("gpt2"), 768
    f32 = estimate_memory(config, TrainSettings(method="full", precision="f32"))
    assert f32.activations == 4 * (1024 * (12 * (11 * c + 12 * c) + 12 * c + 16 * c) + 2**25)
    bf16 = estimate_memory(config, TrainSettings(method="full", precision="bf16"))
    assert bf16.activations == 2 * (1024 * (12 * (6 * c + 4 * c) + 12 * c + 16 * c) + 2**25)
    assert f32.total == f32.weights + f32.gradients + f32.moments + f32.activations


@pytest.mark.parametrize(("family", "width"), [("gpt2", 128), ("llama", 128), ("llama", 192)])
def test_the_estimate_of_activations_is_what_autograd_keeps(family: str, width: int) -> None:
    """The estimate is about the bytes that autograd saves for the backward pass, each array once."""
    config = tiny_config(
        family, n_embd=width, n_head=4, head_dim=width // 4, n_kv_head=4, n_inner=4 * width, vocab_size=512
    )
    model, kept = Model(config), dict[int, int]()
    values = Values(config)
    load_f32(model, {name: values(name) for name, _ in model.named_parameters()})
    known = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    length = min(128, config.n_positions)
    tokens = torch.arange(4 * length).reshape(4, length) % 512
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(tokens, torch.arange(length).expand(4, length), WHOLE)
    assert hidden.requires_grad
    seen = sum(size for place, size in kept.items() if place not in known)
    settings = TrainSettings(method="full", precision="f32", batch_size=4, length=length)
    estimated = (
        estimate_memory(config, settings).activations - 4 * 2**25 - 4 * 4 * length * 4 * config.n_inner
    )
    assert 0.6 < seen / estimated < 1.25, (seen, estimated)


def test_the_peak_is_seen_even_if_it_is_gone() -> None:
    """Runs in its own process, because this one may hold gigabytes of other tests."""
    linux()
    program = (
        "import numpy as np\n"
        "from pophood.train.run.plan import PeakMemory\n"
        "with PeakMemory(0.005) as peak:\n"
        "    before = peak.now\n"
        "    block = np.ones(30_000_000, np.float32)\n"  # 120 MB
        "    for _ in range(40): block += 1\n"
        "    del block\n"
        "assert peak.bytes - before > 110_000_000, (before, peak.bytes)\n"
        "assert peak.now < peak.bytes - 110_000_000, (peak.now, peak.bytes)\n"
    )
    processes.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["learning_rate", "clip", "steps", "epochs", "minutes"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_what_must_be_more_than_nothing(name: str, value: float) -> None:
    wanted: dict[str, Any] = {name: value}
    with pytest.raises(BadInput, match=f"^{name} must be more than 0, got"):
        TrainSettings(**wanted)
