"""The 8-bit base: its error, its gradients, its bytes, and whole runs on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import pophood
from pophood.cli.app import pophood as command
from pophood.config import tensor_shapes
from pophood.errors import BadInput
from pophood.model.lm import LM
from pophood.train.data import DataOptions
from pophood.train.events import Evaluated, Event, Measuring, Noted, Started, Step
from pophood.train.loop.quantization_loss import quantized_and_full_loss
from pophood.train.model.attention import WHOLE
from pophood.train.model.build import build_model
from pophood.train.model.int8_linear import GROUP, Int8Linear, Int8Weight, int8_matrix_bytes, int8_model
from pophood.train.model.lora import LoraLinear, lora_layers
from pophood.train.model.loss import BatchTensors
from pophood.train.model.transformer import DropoutRates
from pophood.train.run.plan import estimate_memory, remedies
from pophood.train.run.scratch import SIZES
from pophood.train.settings import LoraSettings, TrainSettings
from pophood.train.tune import Tuning
from tests.tiny import tiny_folder

TOKENS = torch.arange(24).reshape(2, 12)
POSITIONS = torch.arange(12).expand(2, 12)
TEXT = "The sun sets over the hills, and the old stones wait for rain.\nNobody comes.\n\n" * 30
SMALL = TrainSettings(
    steps=4,
    batch_size=2,
    length=32,
    learning_rate=5e-3,
    evaluations=2,
    lora=LoraSettings(rank=2),
    base="q8",
    precision="f32",
)


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LM:
    folder = tmp_path_factory.mktemp("model") / "llama"
    tiny_folder(folder, "llama")
    return pophood.load(folder, threads=1)


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator)
    values[0, 0], values[1] = 40.0, 0.0  # one group with an outlier, and a row of zeros
    return values


@pytest.mark.parametrize("columns", [96, 70])
def test_outputs_are_within_the_bound_of_rounding(columns: int) -> None:
    full, x = matrix(48, columns), matrix(20, columns, 1)
    int8 = Int8Weight(full)
    off = (int8.dequantize(torch.float32) - full).abs()
    filled = nn.functional.pad(full, (0, -columns % GROUP))
    largest = filled.view(48, -1, GROUP).abs().amax(-1)
    step = (largest / 254).repeat_interleave(GROUP, 1)[:, :columns]  # half a scale
    assert (off <= step * 1.001 + 1e-12).all()
    assert off.max() > 0
    bound = x.abs() @ step.T
    y = Int8Linear(full, None)(x)
    assert ((y - x @ full.T).abs() <= bound * 1.001 + 1e-4).all()
    assert torch.equal(int8.dequantize(torch.float32)[1], torch.zeros(columns))


def test_whole_multiples_of_the_scale_are_exact() -> None:
    values = torch.arange(-127, 1).float().view(4, GROUP) / 64
    values[:, 0] = -127 / 64
    assert torch.equal(Int8Weight(values).dequantize(torch.float32), values)
    assert torch.equal(Int8Weight(values).dequantize(torch.bfloat16).float(), values)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_those_of_the_dequantized_matrix(dropout: float) -> None:
    bias, settings = nn.Parameter(torch.randn(48), requires_grad=False), LoraSettings(rank=4, dropout=dropout)
    int8 = Int8Linear(matrix(48, 96), bias)
    plain = nn.Linear(96, 48)
    plain.weight = nn.Parameter(int8.weight.dequantize(torch.float32), requires_grad=False)
    plain.bias = bias
    found = []
    for base in (int8, plain):
        torch.manual_seed(3)
        layer = LoraLinear(base, settings)
        nn.init.normal_(layer.lora_b, 0, 0.1)
        x = torch.randn(2, 7, 96, requires_grad=True)
        y = layer(x)
        (y**2).sum().backward()
        found.append((y.detach(), x.grad, layer.lora_a.grad, layer.lora_b.grad))
    for mine, reference in zip(*found, strict=True):
        assert mine is not None
        assert reference is not None
        assert (mine - reference).abs().max() <= 1e-5 * reference.abs().max()


def test_a_layer_without_lora_passes_gradients_on() -> None:
    int8, x = Int8Linear(matrix(48, 96), None), torch.randn(5, 96, requires_grad=True)
    int8(x).sum().backward()
    expected = int8.weight.dequantize(torch.float32).sum(0).expand(5, 96)
    assert x.grad is not None
    assert (x.grad - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_no_dequantized_matrix_is_saved_for_backward() -> None:
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    layer = LoraLinear(Int8Linear(matrix(640, 512), None), LoraSettings(rank=2))
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(torch.randn(3, 512, requires_grad=True)).sum()
    assert kept
    assert max(kept) < 640 * 512 // 2


def test_its_bytes_and_its_int8_matrices(lm: LM) -> None:
    model = build_model(lm.bundle, SMALL)
    here, in_full = int8_matrix_bytes(model)
    padded = sum(int8.values.numel() for int8 in model.modules() if isinstance(int8, Int8Weight))
    assert here == padded * (1 + 4 / GROUP)
    large = Int8Weight(matrix(64, 256))
    assert large.nbytes == pytest.approx(0.28125 * 4 * 64 * 256)
    assert in_full > here
    blocks = len(model.blocks)
    assert len([m for m in model.modules() if isinstance(m, Int8Weight)]) == 7 * blocks
    assert {name.rsplit(".", 1)[1] for name, p in model.named_parameters() if p.requires_grad} == {
        "lora_a",
        "lora_b",
    }
    assert model.embed.token.dtype is torch.float32
    assert not any(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_the_loss_with_and_without_int8(tmp_path: Path, family: str) -> None:
    tiny_folder(tmp_path / family, family)
    bundle = pophood.load(tmp_path / family, threads=1).bundle
    full, int8 = build_model(bundle, replace(SMALL, base="auto")), build_model(bundle, SMALL)
    before = [int8.blocks[i] for i in range(len(int8.blocks))]
    batches = [BatchTensors(TOKENS, TOKENS.roll(-1, 1), POSITIONS, WHOLE)] * 2
    cost, reference = quantized_and_full_loss(int8, bundle.weights, batches)
    assert [int8.blocks[i] for i in range(len(int8.blocks))] == before
    with torch.no_grad():
        expected = [
            nn.functional.cross_entropy(
                (model(TOKENS, POSITIONS, WHOLE) @ model.output_weight.T).flatten(0, 1),
                TOKENS.roll(-1, 1).flatten(),
            )
            for model in (int8, full)
        ]
    assert cost == pytest.approx(float(expected[0]), abs=1e-5)
    assert reference == pytest.approx(float(expected[1]), abs=1e-5)
    assert cost != reference


def test_int8_works_in_bfloat16(lm: LM) -> None:
    half = build_model(lm.bundle, replace(SMALL, precision="bf16"))
    full = build_model(lm.bundle, SMALL)
    assert half.embed.token.dtype is torch.bfloat16
    y, reference = half(TOKENS, POSITIONS, WHOLE), full(TOKENS, POSITIONS, WHOLE)
    assert (y.float() - reference).abs().max() < 0.05 * reference.abs().max()
    y.float().sum().backward()
    assert all(layer.lora_b.grad is not None for layer in lora_layers(half).values())


def test_only_targets_get_lora_and_all_matrices_are_int8(lm: LM) -> None:
    model = build_model(lm.bundle, replace(SMALL, lora=LoraSettings(rank=2, targets=("attn.q",))))
    assert {name.rsplit(".", 1)[1] for name in lora_layers(model)} == {"q"}
    assert isinstance(model.blocks[0].get_submodule("mlp.up"), Int8Linear)


def test_trainable_weights_cannot_be_int8() -> None:
    with pytest.raises(BadInput, match="base q8 is for method lora, got last"):
        TrainSettings(method="last", base="q8")


def test_the_full_model_never_exists(lm: LM) -> None:
    class RecordingWeights(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            names.append(name)
            return lm.bundle.weights[name]

    names: list[str] = []
    model = int8_model(lm.config, DropoutRates(), RecordingWeights())
    assert len(names) == len(set(names)) == len(tensor_shapes(lm.config))
    assert not any(isinstance(module, nn.Linear) for module in model.modules())


def test_a_run_reports_the_cost_and_resumes_to_the_same_bits(lm: LM, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")

    def run(out: str, **options: Any) -> Tuning:
        settings = None if options.get("resume") else SMALL
        return Tuning(lm, path, tmp_path / out, settings, DataOptions(cache=tmp_path / "cache"), **options)

    whole = run("whole")
    events = list(whole)
    records = [event for event in events if not isinstance(event, Measuring)]
    started, note = records[:2]
    assert isinstance(started, Started)
    assert isinstance(note, Noted)
    assert "8-bit base: loss" in note.text
    assert started.parameters == lm.config.n_params + started.trained
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    assert losses[-1] < losses[0]
    cut_events: list[Event] = []
    cut = run("cut", should_stop=lambda: "stopped" if any(isinstance(e, Step) for e in cut_events) else None)
    cut_events.extend(cut)
    resumed = list(run("cut", resume=True))
    assert not any(isinstance(event, Noted) for event in resumed)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    plain = lm.logits("The sun sets")
    lm.use_adapters([whole.out])
    try:
        with torch.no_grad():
            ids = torch.tensor([lm.bundle.tokenizer.encode("The sun sets")])
            hidden = whole._trainer.model.eval()(ids, torch.arange(ids.shape[1])[None], WHOLE)[0]
            expected = (hidden @ whole._trainer.model.output_weight.T).numpy()
        got = lm.logits("The sun sets")
    finally:
        lm.use_adapters([])
    change = np.abs(got - plain).max()
    assert np.abs(got - expected).max() < 0.5 * change, (
        "an adapter trained on the 8-bit base works on the full model"
    )


def test_the_command_line_tunes_and_runs_it(lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPHOOD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text(TEXT, encoding="utf-8")
    short = ["--steps", "2", "--length", "32", "--rank", "2", "--threads", "1"]
    done = CliRunner().invoke(command, ["tune", "notes.txt", "-m", lm.name, "--base", "q8", *short])
    assert done.exit_code == 0, done.output
    assert "8-bit base: loss" in done.output
    assert json.loads(Path("notes-lora/tune.json").read_text(encoding="utf-8"))["settings"]["base"] == "q8"
    used = ["run", "The sun", "--adapter", "notes-lora", "--max-tokens", "3"]
    assert CliRunner().invoke(command, used).exit_code == 0
    refused = CliRunner().invoke(command, ["tune", "notes.txt", "--base", "q8", "--method", "last"])
    assert refused.exit_code == 2
    assert "--base: for --method lora, and this is --method last" in refused.output


@pytest.mark.parametrize("tied", [True, False])
def test_the_plan_counts_its_bytes(tied: bool) -> None:
    config = replace(SIZES["gpt2-small"], tied_output=tied)
    matrices = config.n_params - (1 if tied else 2) * config.vocab_size * config.n_embd
    for settings, less in ((TrainSettings(precision="f32"), 2.875), (TrainSettings(precision="bf16"), 0.875)):
        full, int8 = (
            estimate_memory(config, replace(settings, base=base)).weights for base in ("auto", "q8")
        )
        assert full - int8 == pytest.approx(less * matrices, rel=1e-3)
    assert any("--base q8" in remedy for remedy in remedies(TrainSettings()))
    assert not any("--base q8" in remedy for remedy in remedies(TrainSettings(base="q8")))
