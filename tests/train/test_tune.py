"""Whole runs: the written result is what was learned, and a resumed run has the same bits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pophood
from pophood.adapters.peft import read_adapter
from pophood.errors import BadInput, Cancelled, EngineError, NotFound
from pophood.model.lm import LM
from pophood.train.checkpoint.save_load import TrainerState
from pophood.train.data import DataOptions
from pophood.train.defaults import for_model
from pophood.train.events import Evaluated, Event, Finished, Measuring, Sampled, Started, Step
from pophood.train.model.attention import WHOLE
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.tune import Tuning, default_out, tune
from tests.tiny import tiny_folder

SMALL = TrainSettings(
    steps=6,
    batch_size=2,
    length=32,
    learning_rate=5e-3,
    evaluations=2,
    lora=LoraSettings(rank=2),
    precision="f32",  # the engine's, which the results are held to
)
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


def of_method(method: Any = "lora", **changes: Any) -> TrainSettings:
    """Return the small settings for a method, without options of other methods."""
    usual: dict[str, Any] = {} if method == "lora" else {"lora": LoraSettings()}
    usual |= {"last_blocks": 1} if method == "last" else {}
    return replace(SMALL, method=method, **{**usual, **changes})


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    folder = tmp_path_factory.mktemp("model") / "llama"
    tiny_folder(folder, "llama")
    return pophood.load(folder, threads=1)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def start(lm: LM, notes: Path, tmp_path: Path) -> Callable[..., Tuning]:
    def begin(settings: TrainSettings | None = SMALL, out: str = "out", **options: Any) -> Tuning:
        data = DataOptions(cache=tmp_path / "cache")
        return Tuning(lm, notes, tmp_path / out, settings, data, **options)

    return begin


def torch_logits(tuning: Tuning, ids: list[int]) -> np.ndarray[Any, Any]:
    model = tuning._trainer.model.eval()
    tokens = torch.tensor([ids])
    with torch.no_grad():
        hidden = model(tokens, torch.arange(len(ids))[None], WHOLE)[0]
        values: np.ndarray[Any, Any] = (hidden @ model.output_weight.T).numpy()
    return values


def test_what_lora_learned_is_what_the_engine_computes(start: Callable[..., Tuning], lm: LM) -> None:
    plain = lm.logits("The sun sets")
    tuning = start()
    events: list[Event] = list(tuning)
    measuring = [event for event in events if isinstance(event, Measuring)]
    assert [(event.part, event.parts) for event in measuring] == [(n, 5) for n in range(1, 6)]
    assert events[:5] == measuring, "they come first"
    assert [type(event) for event in events[5:7]] == [Started, Evaluated]
    assert [event.step for event in events if isinstance(event, Step)] == [1, 2, 3, 4, 5, 6]
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    assert losses[-1] < losses[0] - 0.05
    assert any(isinstance(event, Sampled) for event in events)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "steps"
    assert np.array_equal(lm.logits("The sun sets"), plain), "the caller's model is as it was"
    lm.use_adapters([tuning.out])
    try:
        ours = lm.logits("The sun sets")
    finally:
        lm.use_adapters([])
    theirs = torch_logits(tuning, lm.tokenize("The sun sets"))
    assert np.abs(theirs - plain).max() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    adapter = read_adapter(tuning.out)
    assert adapter.base["name"] == str(lm.path)
    assert (tuning.out / "report.html").read_text(encoding="utf-8").startswith("<!")
    assert not (tuning.out / "checkpoints").exists()


@pytest.mark.parametrize("method", ["full", "last"])
def test_a_full_result_is_a_model(start: Callable[..., Tuning], lm: LM, method: Any) -> None:
    tuning = start(of_method(method, steps=2))
    list(tuning)
    made = pophood.load(tuning.out, threads=1)
    theirs = torch_logits(tuning, lm.tokenize("The sun sets"))
    np.testing.assert_allclose(made.logits("The sun sets"), theirs, atol=1e-4)
    first = "blocks.0.attn.q.weight"
    assert np.array_equal(made.weights[first], lm.weights[first]) == (method == "last")
    last = f"blocks.{lm.config.n_layer - 1}.attn.q.weight"
    assert not np.array_equal(made.weights[last], lm.weights[last])
    assert tuning.card is not None
    assert all(change.norm > 0 for change in tuning.card.changes)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(start: Callable[..., Tuning]) -> None:
    whole = start(replace(SMALL, dropout=0.1))
    list(whole)
    reasons: list[str] = []
    stopped = start(replace(SMALL, dropout=0.1), "cut", should_stop=lambda: reasons[0] if reasons else None)
    for event in stopped:
        reasons += ["stopped"] if isinstance(event, Step) and event.step == 4 else []
    assert stopped.card is not None
    assert stopped.card.reason == "stopped"
    read_adapter(stopped.out)  # what was learned so far is usable
    with pytest.raises(BadInput, match="continue it with --resume"):
        start(SMALL, "cut")
    resumed = start(None, "cut", resume=True)
    assert resumed.setup.prompts == stopped.setup.prompts
    events = list(resumed)
    assert isinstance(events[0], Started)
    assert (events[0].first_step, events[0].steps) == (4, 6)
    ours, theirs = read_adapter(resumed.out), read_adapter(whole.out)
    for target, (a, b) in theirs.targets.items():
        assert np.array_equal(ours.targets[target][0], a)
        assert np.array_equal(ours.targets[target][1], b)
    steps = [event["step"] for event in resumed.folder.events() if event["event"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6]
    with pytest.raises(NotFound, match="the run is complete"):
        start(None, "cut", resume=True)


def test_other_data_is_refused_on_resuming(start: Callable[..., Tuning], notes: Path) -> None:
    stopped = start(should_stop=lambda: "stopped" if steps else None)
    steps: list[Step] = []
    for event in stopped:
        steps += [event] if isinstance(event, Step) else []
    notes.write_text(TEXT + "More.", encoding="utf-8")
    with pytest.raises(BadInput, match="has changed since the run began"):
        start(None, resume=True)


def test_minutes_become_steps_and_the_clock_cuts(start: Callable[..., Tuning]) -> None:
    tuning = start(replace(SMALL, steps=None, minutes=0.08, patience=0))
    list(tuning)
    assert tuning.plan is not None
    assert tuning.plan.steps >= 1
    assert tuning.card is not None
    assert tuning.card.reason in ("steps", "clock")
    assert tuning.card.actual.steps >= 1
    written = json.loads((tuning.out / "tune.json").read_text(encoding="utf-8"))
    assert written["plan"]["steps"] == tuning.plan.steps


def test_more_than_the_model_has_is_refused_at_once(start: Callable[..., Tuning], lm: LM) -> None:
    """A default length is shortened to the model's positions, but a requested one is not."""
    most, blocks = lm.config.n_positions, lm.config.n_layer
    with pytest.raises(BadInput, match=rf"a length of 100,000 exceeds the model's {most:,} positions: lower"):
        start(replace(SMALL, length=100_000))
    with pytest.raises(BadInput, match=rf"the model has {blocks} blocks, got 99 to train: lower"):
        start(of_method("last", last_blocks=99))
    assert for_model(TrainSettings(), replace(lm.config, n_positions=100)).length == 100


def test_a_disk_slower_than_assumed_is_given_time_at_the_end(start: Callable[..., Tuning]) -> None:
    tuning = start(replace(SMALL, steps=None, minutes=0.2))
    save = tuning.folder.save

    def slowly(state: TrainerState) -> str:
        time.sleep(0.4)
        return save(state)

    tuning.folder.save = slowly  # type: ignore[method-assign]
    list(tuning)
    assert tuning.plan is not None
    clock = tuning._trainer.clock
    assert clock is not None
    assert clock.ending >= tuning.plan.reserve + 2 * 0.4 - 2 * tuning.plan.seconds_per_save


def test_the_best_weights_are_kept(lm: LM, notes: Path, tmp_path: Path) -> None:
    """Training on one text makes another less likely, and the lowest validation loss decides."""
    other = tmp_path / "other.txt"
    other.write_text("12 + 7 = 19; 8 * 9 = 72; [0x3f, 0x7a]\n" * 20, encoding="utf-8")
    data = DataOptions(cache=tmp_path / "cache", validation_paths=(other,))
    settings = of_method("full", learning_rate=0.01, steps=8, evaluations=8)
    tuning = Tuning(lm, notes, tmp_path / "out", settings, data)
    losses = {event.step: event.loss for event in tuning if isinstance(event, Evaluated)}
    assert tuning.card is not None
    learned = {step: loss for step, loss in losses.items() if step > 0}
    best = min(learned, key=lambda step: learned[step])
    assert best != 8, losses
    assert tuning.card.step == best
    assert tuning.card.loss_after == learned[best]


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_the_last_weights_are_kept_where_they_are_the_best(start: Callable[..., Tuning], stop: int) -> None:
    """The run is stopped between two evaluations, and has its lowest loss at the end."""
    reasons: list[str] = []
    settings = of_method("full", steps=20, evaluations=10, learning_rate=2e-3)
    tuning = start(settings, should_stop=lambda: reasons[0] if reasons else None)
    losses: dict[int, float] = {}
    for event in tuning:
        losses |= {event.step: event.loss} if isinstance(event, Evaluated) else {}
        reasons += ["stopped"] if isinstance(event, Step) and event.step == stop else []
    assert stop in losses and min(losses, key=lambda step: losses[step]) == stop, losses
    assert tuning.card is not None
    assert (tuning.card.step, tuning.card.reason) == (stop, "stopped")
    assert tuning.card.loss_after == losses[stop]
    assert tuning._trainer.validation_loss() == pytest.approx(losses[stop], rel=1e-6)
    found = json.loads((tuning.out / "report.json").read_text(encoding="utf-8"))
    assert found["step"] == stop


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-12},
        {"learning_rate": 1e-30, "method": "full"},
        {"learning_rate": 1e-12, "precision": "bf16"},
        {"learning_rate": 1e-30, "method": "last", "last_blocks": 1},
    ],
)
def test_a_run_that_learned_nothing_says_so_and_writes_nothing(
    start: Callable[..., Tuning], lm: LM, changes: dict[str, Any]
) -> None:
    plain, tuning = lm.logits("The sun sets"), start(of_method(**changes))
    with pytest.raises(EngineError, match=r"^nothing was learned in 6 steps, and nothing is w.*raise"):
        list(tuning)
    assert tuning.card is None
    assert not tuning.out.exists()
    assert np.array_equal(lm.logits("The sun sets"), plain), "the caller's model is as it was"


def test_no_step_at_all_is_nothing_learned(start: Callable[..., Tuning]) -> None:
    reasons: list[str] = []
    tuning = start(should_stop=lambda: reasons[0] if reasons else None)
    with pytest.raises(Cancelled, match="stopped after 0 steps: nothing was learned, and nothing is wri"):
        for event in tuning:
            reasons += ["stopped"] if isinstance(event, Evaluated) else []
    assert not tuning.out.exists()


@pytest.mark.parametrize("part", [1, 2, 3, 4, 5])
def test_a_stop_is_heard_between_the_parts_of_measuring(start: Callable[..., Tuning], part: int) -> None:
    reasons: list[str] = []
    tuning, seen = start(should_stop=lambda: reasons[0] if reasons else None), list[int]()
    with pytest.raises(Cancelled, match="nothing was written"):
        for event in tuning:
            assert isinstance(event, Measuring)
            seen.append(event.part)
            reasons += ["stopped"] if event.part == part else []
    assert seen == list(range(1, part + 1))
    assert not tuning.out.exists()


def test_every_step_says_what_is_left(start: Callable[..., Tuning]) -> None:
    steps = [event for event in start() if isinstance(event, Step)]
    assert [step.steps for step in steps] == [6] * 6
    assert all(step.left > 0 for step in steps[:-1])
    timed = start(replace(SMALL, steps=None, minutes=0.1, patience=0), "timed")
    lefts = [event.left for event in timed if isinstance(event, Step)]
    assert lefts == sorted(lefts, reverse=True)
    assert 0 < lefts[0] < 6


def test_few_lines_warn_and_work(lm: LM, tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("My dog is called Bruno.\nHe likes the sea.\n", encoding="utf-8")
    options = DataOptions(cache=tmp_path / "cache")
    tuning = Tuning(lm, path, tmp_path / "out", replace(SMALL, steps=2), options)
    assert any("fewer than 20" in warning for warning in tuning.data.report.warnings)
    list(tuning)
    read_adapter(tuning.out)


def test_a_template_travels_with_the_adapter(tmp_path: Path) -> None:
    lm = pophood.load(tiny_folder(tmp_path / "gpt2", "gpt2"), threads=1)
    path = tmp_path / "tasks.jsonl"
    lines = [json.dumps({"prompt": f"What is {n}?", "completion": f"A number, {n}."}) for n in range(30)]
    path.write_text("\n".join(lines), encoding="utf-8")
    options = DataOptions(cache=tmp_path / "cache")
    tuning = Tuning(lm, path, tmp_path / "out", replace(SMALL, length=64, steps=1), options)
    assert "### Instruction" in tuning.setup.prompts[0].text
    list(tuning)
    templates = [lm.chat_template]
    lm.use_adapters([tuning.out])
    templates.append(lm.chat_template)
    lm.use_adapters([])
    assert templates[0] is None
    assert templates[1] is not None
    assert "### Response" in templates[1].render([{"role": "user", "content": "Hi"}])
    assert lm.chat_template is None


def test_a_stop_before_the_first_step_writes_nothing(start: Callable[..., Tuning]) -> None:
    tuning = start(should_stop=lambda: "stopped")
    with pytest.raises(Cancelled, match="nothing was written"):
        list(tuning)
    assert not tuning.out.exists()


def test_one_clear_line_for_each_mistake(
    lm: LM, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="no setting is called minuts; wanted one of: method"):
        tune(lm, notes, minuts=5)
    with pytest.raises(BadInput, match="method is 'half'; wanted lora, full or last"):
        tune(lm, notes, method="half")
    with pytest.raises(NotFound, match="holds no run of tune"):
        Tuning(lm, notes, tmp_path / "none", resume=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    with pytest.raises(BadInput, match="already exists and is no run of tune"):
        Tuning(lm, notes, tmp_path / "taken", overwrite=True)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NotFound, match=r"pip install torch --index-url https://download.pytorch.org/whl/cpu"):
        Tuning(lm, notes, tmp_path / "out")


def test_the_folder_is_named_after_the_data() -> None:
    assert default_out([Path("a/notes.txt")], "lora") == "notes-lora"
    assert default_out([Path("letters")], "full") == "letters-full"


def test_the_split_has_the_seed_of_the_run(start: Callable[..., Tuning], lm: LM, tmp_path: Path) -> None:
    """The split has the run's seed unless the data options name another."""
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {n} of the text" for n in range(60)), encoding="utf-8")

    def held(out: str, split: int | None, run: int = 42) -> set[str]:
        data = DataOptions(format="lines", seed=split, cache=tmp_path / "cache")
        tuning = Tuning(lm, path, tmp_path / out, replace(SMALL, seed=run), data)
        assert tuning.setup.options.seed == (run if split is None else split)
        return {example.source for example in tuning.data.validation}

    usual = held("a", None)
    assert usual == held("b", 42) == held("c", 42, run=7)
    assert usual != held("d", None, run=7) == held("e", 7)


def test_rows_longer_than_the_model_are_said(notes: Path, tmp_path: Path) -> None:
    short = pophood.load(tiny_folder(tmp_path / "short", "gpt2"), threads=1)
    data = DataOptions(cache=tmp_path / "cache")
    tuning = Tuning(short, notes, tmp_path / "a", TrainSettings(steps=1), data)
    assert tuning.messages == ["rows have 128 positions instead of 256: the model has no more"]
    assert Tuning(short, notes, tmp_path / "b", TrainSettings(steps=1, length=128), data).messages == []


def test_options_that_would_change_nothing_are_refused(lm: LM, notes: Path) -> None:
    for method in ("full", "last"):
        with pytest.raises(BadInput, match=f"^rank and rslora: only for method lora, got method {method}"):
            tune(lm, notes, method=method, lora={"rank": 4, "rslora": True})
        with pytest.raises(BadInput, match="targets: only for method lora"):
            tune(lm, notes, method=method, lora=LoraSettings(targets=("attn.q",)))
    with pytest.raises(BadInput, match="last_blocks and cache_limit: only for method last, got method"):
        tune(lm, notes, last_blocks=9, cache_limit=1.0)
    with pytest.raises(BadInput, match="last_blocks: only for method last, got method full"):
        tune(None, notes, from_scratch="gpt2-nano", last_blocks=2)
    with pytest.raises(BadInput, match="an 8-bit base cannot be trained"):
        tune(lm, notes, method="last", base="q8")
    with pytest.raises(
        BadInput, match="a resumed run keeps its settings: leave out batch_size, lora, method"
    ):
        tune(lm, notes, resume=True, method="full", batch_size=8, lora={"rank": 4}, minutes=3)


def test_a_run_of_an_earlier_version_goes_on_without_what_it_never_used() -> None:
    from pophood.train.checkpoint.resume import settings_of

    old = {"method": "full", "lora": {"rank": 4}, "last_blocks": 9, "cache_limit": 0.0, "batch_size": 2}
    assert settings_of({"settings": old}) == TrainSettings("full", batch_size=2)
