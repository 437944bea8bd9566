"""The report card: its measures against torch and by hand, its page and its curve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import pophood
from pophood.model.lm import LM
from pophood.train.data import IGNORED, DataOptions, PackedSampler, open_data
from pophood.train.data.dataset.examples import Pieces
from pophood.train.loop.evaluation import evaluate, loss_of
from pophood.train.model.build import build_model
from pophood.train.report.curve import curve, words
from pophood.train.report.eval_texts import PASSAGES
from pophood.train.report.measures import Measures, mean_loss, passage_losses, timed_samples, verbatim
from pophood.train.report.report_card import _norms, largest
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.tune import Tuning
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    folder = tmp_path_factory.mktemp("model") / "llama"
    tiny_folder(folder, "llama")
    return pophood.load(folder, threads=1)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Prompts of different lengths with answers, which alone are learned."""
    path = tmp_path / "tasks.jsonl"
    lines = [
        json.dumps({"prompt": "What is it? " * (1 + n % 5), "completion": f"It is the number {n}."})
        for n in range(24)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_the_engine_and_torch_measure_the_same_loss(lm: LM, tasks: Path, tmp_path: Path) -> None:
    """Packed rows in torch and single documents in the engine have the same masks and boundaries."""
    from pophood.train.distributed.sharding import DistributedModel
    from pophood.train.loop.step import evaluate as torch_loss
    from pophood.train.model.loss import BatchTensors

    options = DataOptions(length=96, cache=tmp_path / "cache", validation=0)
    data = open_data(tasks, lm.bundle.tokenizer, lm.chat_template, options)
    ours = loss_of(lm.engine, data.train)
    sampler = PackedSampler(data.train, 2, 96, 0)
    batches = [sampler.batch(0, i) for i in range(sampler.batches_per_epoch(0))]
    model = build_model(lm.bundle, TrainSettings(length=96, precision="f32"))
    theirs = torch_loss(DistributedModel(model), map(BatchTensors.of, batches))
    assert ours.tokens == sum(np.count_nonzero(batch.targets != IGNORED) for batch in batches)
    assert ours.documents == 24
    assert ours.loss == pytest.approx(theirs, rel=1e-5)
    assert ours.perplexity == pytest.approx(np.exp(theirs), rel=1e-4)
    everything = DataOptions(length=96, cache=tmp_path / "cache", completions_only=False)
    assert evaluate(lm, tasks, everything).tokens > 2 * ours.tokens


class Text:
    """A training text of these ids, all of which are learned."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = np.array(ids)
        self.store = self

    def trained(self, start: int, end: int) -> Any:
        return np.ones(end - start, np.bool_)

    def pieces(self) -> Pieces:
        return Pieces(np.array([0]), np.array([len(self.ids) - 1], np.int32), np.array([0]))


def test_what_is_by_heart_is_found(lm: LM) -> None:
    """A model continues its own greedy text word by word, and no other text."""
    given = lm.tokenize("The sun sets over the hills, and the old stones wait.")[:16]
    own = [token.id for token in lm.stream(given, max_tokens=40, temperature=0)]
    known: Any = Text(given + own)
    assert verbatim(lm.engine, known) == 1.0
    other: Any = Text(given + own[:10] + [(token + 1) % 100 for token in own[10:]])
    assert verbatim(lm.engine, other) == 0.0
    short: Any = Text(given)
    assert verbatim(lm.engine, short) is None
    passages = passage_losses(lm)
    assert len(passages) == len(PASSAGES)
    assert 0 < mean_loss(passages) < 20
    assert passage_losses(lm, seconds=0) == passages[:1], "one is always read"
    assert passage_losses(lm, most=3) == passages[:3]


def test_losses_are_compared_on_the_passages_that_both_read() -> None:
    """By hand: (10 + 50) / (5 + 10) nats per token on two passages, 10 / 5 on the first."""
    both = Measures(4.0, None, (), 1.0, passages=((10.0, 5), (50.0, 10)))
    assert mean_loss(both.passages) == 4.0
    assert both.on(1).general == 2.0
    assert both.on(2) == both.on(8) == both


def test_samples_are_short_where_there_is_little_time(lm: LM) -> None:
    from pophood.train.report.measures import SamplePrompt

    prompts = [SamplePrompt(tuple(lm.tokenize(text)), text) for text in ("The sun", "The hills")]
    long, most = timed_samples(lm, prompts)
    short, tokens = timed_samples(lm, prompts, seconds=0)
    assert (tokens, most) == (8, 60)
    assert all(whole.startswith(start[:3]) for whole, start in zip(long, short, strict=True))
    assert timed_samples(lm, prompts, seconds=600)[0] == long


def test_singular_values_are_numpys() -> None:
    random = np.random.default_rng(3)
    matrix = random.standard_normal((40, 6)).astype(np.float32) @ np.diag([9, 4, 1, 1, 1, 1]).astype("f4")
    assert largest(matrix) == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-3)
    assert largest(np.zeros((3, 3), np.float32)) == 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_card_says_what_changed(lm: LM, tasks: Path, tmp_path: Path, method: str) -> None:
    settings = TrainSettings(
        method=method,  # type: ignore[arg-type]
        steps=3,
        length=96,
        batch_size=2,
        learning_rate=1e-2,
        evaluations=1,
        precision="f32",
        lora=LoraSettings(rank=2) if method == "lora" else LoraSettings(),
    )
    tuning = Tuning(lm, tasks, tmp_path / "<out>", settings, DataOptions(cache=tmp_path / "cache"))
    list(tuning)
    card, trainer = tuning.card, tuning._trainer
    assert card is not None
    assert card.loss_after == pytest.approx(trainer.validation_loss(), rel=1e-6)
    assert card.loss_before is not None
    assert card.loss_after is not None
    assert card.loss_after < card.loss_before
    change = next(change for change in card.changes if change.matrix == "blocks.1.mlp.up")
    base = lm.weights["blocks.1.mlp.up.weight"]
    if method == "lora":
        layer = trainer.model.get_submodule("blocks.1.mlp.up")
        dense = (layer.scale * (layer.lora_b @ layer.lora_a)).detach().numpy()  # type: ignore[operator]
    else:
        dense = trainer.model.get_parameter("blocks.1.mlp.up.weight").detach().numpy() - base
    values = np.linalg.svd(dense, compute_uv=False)
    assert change.norm == pytest.approx(np.linalg.norm(dense), rel=1e-4)
    assert change.share == pytest.approx(np.linalg.norm(dense) / np.linalg.norm(base), rel=1e-4)
    assert change.rank == pytest.approx((np.linalg.norm(dense) / values[0]) ** 2, rel=0.05)
    assert card.actual.memory > 0
    said = json.loads((tuning.out / "report.json").read_text(encoding="utf-8"))
    assert said["loss_after"] == card.loss_after
    assert len(card.changed()) == 7 + (method == "full")
    html = (tuning.out / "report.html").read_text(encoding="utf-8")
    assert "&lt;out&gt;" in html
    assert "<out>" not in html
    marked = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:)[^"#]', marked), "nothing from elsewhere"
    assert "default-src 'none'" in html


def test_the_curve_is_an_svg_that_says_what_it_shows() -> None:
    events = [{"event": "evaluated", "step": 0, "loss": 4.0, "best": True}]
    events += [{"event": "step", "step": n, "loss": 4.0 - n / 100} for n in range(1, 101)]
    events += [{"event": "evaluated", "step": 100, "loss": 3.2, "best": True}]
    root = ElementTree.fromstring(curve(events))
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text is not None
    assert "validation loss from 4.000 to 3.200, lowest 3.200 at step 100" in title.text
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert [line.get("class") for line in lines] == ["steps few", "mean", "validation"]
    places = [tuple(map(float, point.split(","))) for point in (lines[2].get("points") or "").split()]
    assert places[0][1] < places[1][1], "a lower loss stands lower"
    ElementTree.fromstring(curve([]))
    assert words([], []) == "no step was made"


@pytest.mark.parametrize("lowest", [3.9, 3.55, 3.33, 2.71, 0.05])
def test_the_numbers_of_a_curve_stand_within_its_axes(lowest: float) -> None:
    losses = np.linspace(4.02, lowest, 30).tolist()
    events = [{"event": "step", "step": n, "loss": loss} for n, loss in enumerate(losses, 1)]
    root = ElementTree.fromstring(curve(events))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text for text in root.findall(f"{space}text") if text.get("y")]
    beside = [float(text.get("y", "")) for text in texts if text.get("text-anchor") == "end"]
    below = [float(text.get("y", "")) for text in texts if text.get("text-anchor") == "middle"]
    lines = [
        float(line.get("y1", "")) for line in root.findall(f"{space}line") if line.get("class") == "grid"
    ]
    assert len(set(below)) == 1 and sorted(lines)[-1] <= below[0] - 12
    assert min(beside) > 0
    for line in root.findall(f"{space}polyline"):
        heights = [float(point.split(",")[1]) for point in (line.get("points") or "").split()]
        assert all(min(lines) <= height <= max(lines) for height in heights)


@pytest.mark.parametrize("rank", [1, 2, 8, 64, 65])
def test_norms_of_a_low_rank_change_are_numpys(rank: int) -> None:
    random = np.random.default_rng(rank)
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((rank, 90), (120, rank)))
    values = np.linalg.svd(1.5 * (b.astype(np.float64) @ a), compute_uv=False)
    norm, top = _norms(a, b, 1.5)
    assert norm == pytest.approx(np.linalg.norm(values), rel=1e-6)
    assert top == pytest.approx(values[0], rel=1e-6)
    assert _norms(a, 0 * b, 1.5) == (0.0, 0.0)
