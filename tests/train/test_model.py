"""The torch model agrees with transformers in hidden states, loss, and the gradient of every parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pophood.config import tensor_shapes
from pophood.model.bundle import Bundle, open_bundle
from pophood.model.engine import Engine
from pophood.train.model.attention import WHOLE, spans_of
from pophood.train.model.loss import cross_entropy
from pophood.train.model.ops import dropout_add
from pophood.train.model.precision import load_f32, to_bf16
from pophood.train.model.transformer import DropoutRates, Model
from tests.tiny import tiny_folder

FAMILIES = ("gpt2", "llama", "llama-untied", "qwen2", "qwen3")
B, T = 3, 20


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("model") / request.param
    tiny_folder(folder, request.param)
    return open_bundle(folder)


def model_of(bundle: Bundle, dropout: float = 0.0) -> Model:
    model = Model(bundle.config, DropoutRates(dropout, dropout, dropout))
    load_f32(model, bundle.weights)
    return model


def batch_of(bundle: Bundle) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, bundle.config.vocab_size, (B, T), generator=generator)
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = tokens[:, 1:]
    targets[0, :7] = -100
    return tokens, targets, torch.arange(T).expand(B, T)


def reference_gradients(
    bundle: Bundle, tokens: torch.Tensor, targets: torch.Tensor
) -> tuple[float, dict[str, Any]]:
    """Loss and gradients of transformers under our names (GPT-2's Conv1D transposed, q, k, v separated)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        bundle.path, dtype=torch.float32, attn_implementation="eager"
    )
    logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.data = gradient.clone()
    folder = bundle.path.parent / f"{bundle.path.name}-gradients"
    model.save_pretrained(folder)
    for file in bundle.path.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    gradients = open_bundle(folder).weights
    return float(loss.detach()), {name: gradients[name] for name in tensor_shapes(bundle.config)}


def test_loss_and_every_gradient_agree_with_transformers(bundle: Bundle) -> None:
    tokens, targets, positions = batch_of(bundle)
    expected, gradients = reference_gradients(bundle, tokens, targets)
    model = model_of(bundle)
    hidden = model(tokens, positions, WHOLE)
    loss = cross_entropy(hidden, model.output_weight, targets, 1.0 / int((targets != -100).sum()))
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(float(loss.detach()) - expected) < 1e-5
    named = dict(model.named_parameters())
    assert set(named) == set(tensor_shapes(bundle.config))
    # A key's bias shifts all scores of a query alike, so its gradient is zero up to rounding errors.
    floor = 1e-7 * max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        ours = named[name].grad
        assert ours is not None, name
        assert np.abs(ours.numpy() - gradient).max() <= 1e-4 * np.abs(gradient).max() + floor, name


def test_the_hidden_states_agree_with_the_engine(bundle: Bundle) -> None:
    tokens, _, positions = batch_of(bundle)
    model, engine = model_of(bundle), Engine(bundle.config)
    engine.load(bundle.weights)
    with torch.no_grad():
        ours = model(tokens, positions, WHOLE)[0].numpy()
    engines = engine.forward(
        [(engine.new_sequence(), tokens[0].tolist())], output="hidden", rows="all"
    ).output
    assert engines is not None
    assert np.abs(ours - engines).max() <= 1e-4 * np.abs(engines).max()


def test_documents_of_one_row_do_not_see_each_other(bundle: Bundle) -> None:
    model = model_of(bundle)
    tokens, _, _ = batch_of(bundle)
    documents = np.array([[0] * 5 + [1] * 9 + [2] * 4 + [-1] * 2, [0] * T, [0] * 17 + [1] * 3], np.int32)
    positions = np.zeros((B, T), np.int64)
    for row, column in np.ndindex(B, T):
        same = column > 0 and documents[row, column] == documents[row, column - 1]
        positions[row, column] = positions[row, column - 1] + 1 if same else 0
    with torch.no_grad():
        packed = model(tokens, torch.from_numpy(positions), spans_of(documents))
        for row, document in ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1)):
            at = np.flatnonzero(documents[row] == document)
            alone = model(tokens[row, at][None], torch.arange(len(at))[None], WHOLE)[0]
            assert (packed[row, at] - alone).abs().max() < 1e-5 * alone.abs().max()


def test_recomputing_gives_the_same_gradients(bundle: Bundle) -> None:
    tokens, targets, positions = batch_of(bundle)
    results = []
    for recompute in (False, True):
        model = model_of(bundle)
        model.recompute = recompute
        model.train()
        cross_entropy(model(tokens, positions, WHOLE), model.output_weight, targets, 1.0).backward()  # type: ignore[no-untyped-call]
        results.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name]), name


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_dropout_zeroes_its_share_and_keeps_the_mean(
    bundle: Bundle, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, _, positions = batch_of(bundle)
    model = model_of(bundle, dropout=0.1)
    if precision == "bf16":
        to_bf16(model)
    torch.manual_seed(3)
    before: list[torch.Tensor] = []
    after: list[torch.Tensor] = []

    def watched(x: torch.Tensor | None, y: torch.Tensor, rate: float) -> torch.Tensor:
        if rate:
            before.append(y.detach())
            after.append(dropout_add(None, y.detach(), rate))
        return dropout_add(x, y, rate)

    monkeypatch.setattr("pophood.train.model.transformer.dropout_add", watched)
    model.train()
    for _ in range(60):
        model(tokens, positions, WHOLE)
    zeros = torch.stack([(output == 0).float().mean() for output in after]).mean()
    assert abs(float(zeros) - 0.1) < 0.002
    ratios = torch.cat([y[out != 0] / out[out != 0] for y, out in zip(before, after, strict=True)])
    assert (ratios.float() - 0.9).abs().max() < 0.01  # the other elements are divided by 0.9
    whole, dropped = (torch.cat([x.float().abs().flatten() for x in xs]) for xs in (before, after))
    assert abs(float(dropped.mean() / whole.mean()) - 1) < 0.01
    model.eval()
    with torch.no_grad():
        outputs = [model(tokens, positions, WHOLE) for _ in range(2)]
    assert torch.equal(*outputs)
    plain = model_of(bundle).eval()
    if precision == "bf16":
        to_bf16(plain)
    assert torch.equal(outputs[0], plain(tokens, positions, WHOLE).detach())


def test_the_fused_loss_agrees_with_torch() -> None:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 300, 16, generator=generator, requires_grad=True)
    weight = torch.randn(97, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 97, (2, 300), generator=generator)
    targets[0, ::3] = -100
    expected = torch.nn.functional.cross_entropy(
        (hidden @ weight.T).flatten(0, 1), targets.flatten(), reduction="sum"
    )
    theirs = torch.autograd.grad(expected * 0.25, (hidden, weight))
    loss = cross_entropy(hidden, weight, targets, 0.25)
    ours = torch.autograd.grad(loss, (hidden, weight))
    assert abs(float(loss.detach()) - 0.25 * float(expected.detach())) < 1e-3
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()
