"""Models from scratch: they learn from the data alone, open elsewhere, and resume to the same bits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pophood
from pophood.errors import BadInput, NotFound
from pophood.train.data import DataOptions
from pophood.train.events import Evaluated, Step
from pophood.train.run.new_model import NewModel, from_scratch, recreate, size_of_run
from pophood.train.run.scratch import SIZES, scratch_rate, sizes_table
from pophood.train.settings import TrainSettings
from pophood.train.tune import Tuning, tune
from tests.conftest import ROOT
from tests.train.data.samples import SHAKESPEARE

SMALL = TrainSettings(method="full", steps=6, batch_size=2, length=64, evaluations=2)
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def start(notes: Path, tmp_path: Path) -> Callable[..., Tuning]:
    def begin(
        model: NewModel, settings: TrainSettings | None = SMALL, out: str = "out", **options: Any
    ) -> Tuning:
        data = DataOptions(cache=tmp_path / "cache")
        return Tuning(model, notes, tmp_path / out, settings, data, **options)

    return begin


@pytest.mark.parametrize("size", ["gpt2-nano", "llama-tiny"])
def test_it_learns_from_nothing_and_others_open_it(size: str, tmp_path: Path) -> None:
    """The loss starts at ln V and falls; transformers computes the same as the engine."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scratch = from_scratch(SHAKESPEARE, size, vocabulary=300, threads=1)
    settings = replace(SMALL, length=96, steps=40, learning_rate=5e-3)
    tuning = Tuning(scratch, SHAKESPEARE, tmp_path / "out", settings, DataOptions(cache=tmp_path / "cache"))
    losses = [event.loss for event in tuning if isinstance(event, Evaluated)]
    assert losses[0] == pytest.approx(math.log(300), abs=0.05)
    assert losses[-1] < losses[0] - 1
    assert tuning.card is not None
    assert tuning.card.model == f"{size} from scratch"
    assert tuning.card.after.general < tuning.card.before.general
    made = pophood.load(tuning.out, threads=1)
    assert made.config.vocab_size == 300
    text = "First Citizen:\nWe are accounted poor citizens"
    reference: Any = AutoModelForCausalLM.from_pretrained(tuning.out).eval()
    ids = AutoTokenizer.from_pretrained(tuning.out)(text)["input_ids"]
    assert ids == made.tokenize(text)
    with torch.no_grad():
        theirs = reference(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(made.logits(text), theirs, atol=1e-4)


def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped(
    start: Callable[..., Tuning], notes: Path
) -> None:
    settings = replace(SMALL, dropout=0.1, seed=7)
    list(start(from_scratch(notes, "gpt2-nano", seed=7, threads=1), settings, "whole"))
    reasons: list[str] = []
    stopped = start(
        from_scratch(notes, "gpt2-nano", seed=7, threads=1),
        settings,
        "cut",
        should_stop=lambda: reasons[0] if reasons else None,
    )
    for event in stopped:
        reasons += ["stopped"] if isinstance(event, Step) and event.step == 4 else []
    pophood.load(stopped.out, threads=1)  # what was learned so far is usable
    assert size_of_run(stopped.out) == "gpt2-nano"
    first = recreate(stopped.out, "gpt2-nano", threads=1)
    for name in stopped.lm.weights:
        assert np.array_equal(first.lm.weights[name], stopped.lm.weights[name])
    resumed = start(first, None, "cut", resume=True)
    list(resumed)
    whole, cut = (resumed.out.parent / name for name in ("whole", "cut"))
    for name in ("model.safetensors", "tokenizer.json", "config.json", "generation_config.json"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name
    changes = [json.loads((place / "report.json").read_text())["changes"] for place in (whole, cut)]
    assert changes[0] == changes[1], "both began at the same weights"
    with pytest.raises(BadInput, match="trains gpt2-nano from scratch: leave out --from-scratch gpt2-tiny"):
        recreate(cut, "gpt2-tiny")


def test_the_weights_follow_from_the_seed(notes: Path) -> None:
    one, same, other = (from_scratch(notes, "gpt2-nano", seed=seed, threads=1).lm for seed in (1, 1, 2))
    assert np.array_equal(one.logits("The sun"), same.logits("The sun"))
    assert not np.array_equal(one.logits("The sun"), other.logits("The sun"))


def test_a_context_of_128_positions_suffices(tmp_path: Path) -> None:
    """The chat template is written, and a question longer than the context is cut to its end."""
    path = tmp_path / "tasks.jsonl"
    lines = [{"prompt": f"What is {n}?", "completion": f"A number, {n}."} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    scratch = from_scratch(path, "gpt2-nano", threads=1)
    data = DataOptions(cache=tmp_path / "cache")
    with pytest.raises(BadInput, match="rows of 16 positions hold nothing to learn"):
        Tuning(scratch, path, tmp_path / "out", replace(SMALL, length=16), data)
    settings = replace(SMALL, steps=1, length=TrainSettings().length)
    tuning = Tuning(scratch, path, tmp_path / "out", settings, data, prompts=["Who? " * 100])
    assert tuning.settings.length == 128
    assert len(tuning.setup.prompts[0].ids) > 128
    list(tuning)
    assert tuning.card is not None
    assert tuning.card.after.samples[0] and not tuning.card.after.samples[0].startswith("(")
    assert "### Response" in (tuning.out / "chat_template.jinja").read_text(encoding="utf-8")
    assert pophood.load(tuning.out, threads=1).chat_template is not None


def test_the_library_takes_a_size(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = DataOptions(cache=tmp_path / "cache")
    tuning = tune(
        None, notes.name, from_scratch="gpt2-nano", vocabulary=270, data=options, steps=1, length=32
    )
    list(tuning)
    assert tuning.out == Path("notes-scratch")
    assert tuning.lm.config.vocab_size == 270
    assert (tuning.settings.method, tuning.settings.rate) == ("full", scratch_rate(tuning.lm.config))
    with pytest.raises(NotFound, match="the run is complete"):
        tune(None, notes.name, "notes-scratch", resume=True)


def test_the_page_has_a_program(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in docs/tune.md runs, here with one step instead of a minute."""
    monkeypatch.chdir(notes.parent)
    page = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    code = re.search(r"## From scratch\n.*?```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("minutes=1", "steps=1, length=32"), names)
    assert names["lm"].config.n_layer == SIZES["gpt2-nano"].n_layer


def test_one_clear_line_for_each_mistake(notes: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no size is called 'gpt9'; wanted one of gpt2-nano"):
        tune(None, notes, from_scratch="gpt9")
    with pytest.raises(BadInput, match="creates a new model: pass None as the model"):
        tune("gpt2", notes, from_scratch="gpt2-nano")
    with pytest.raises(BadInput, match="all weights are trained: leave out the method, got lora"):
        tune(None, notes, tmp_path / "out", from_scratch="gpt2-nano", method="lora")
    with pytest.raises(BadInput, match="at least 257 tokens, got 100"):
        tune(None, notes, from_scratch="gpt2-nano", vocabulary=100)
    with pytest.raises(BadInput, match="only a model from scratch takes one: leave out --vocabulary"):
        tune(None, notes, vocabulary=300)
    with pytest.raises(BadInput, match="the run already has one: leave out --vocabulary"):
        tune(None, notes, from_scratch="gpt2-nano", vocabulary=300, resume=True)
    with pytest.raises(NotFound, match="holds no run of tune"):
        recreate(tmp_path)
    with pytest.raises(BadInput, match="did not begin from scratch"):
        (tmp_path / "tune.json").write_text('{"settings": {}}')
        recreate(tmp_path, "gpt2-nano")


def test_the_page_has_the_sizes() -> None:
    page = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `(\w+-\w+)` \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d.e-]+) \|$", page, re.M
    )
    wanted = [
        (row["size"], row["blocks"], row["features"], row["vocabulary"], row["parameters"], row["rate"])
        for row in sizes_table()
    ]
    found = [
        (size, *(int(cell.replace(",", "")) for cell in cells), float(rate)) for size, *cells, rate in rows
    ]
    assert found == wanted
    assert len(found) == len(SIZES)
