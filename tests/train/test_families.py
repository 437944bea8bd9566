"""The torch model of every family: hidden states, loss and every gradient are those of transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pophood.config import ModelConfig, tensor_shapes
from pophood.model.bundle import OpenedWeights, open_weights
from pophood.model.engine import Engine
from pophood.train.model.attention import WHOLE, spans_of
from pophood.train.model.loss import cross_entropy
from pophood.train.model.precision import load_f32, to_bf16
from pophood.train.model.transformer import Model
from tests.made_families import MADE, made_folder, opened_reference

B, T = 2, 40  # longer than the windows


def loss_of(config: ModelConfig, weights: Any, tokens: torch.Tensor, targets: torch.Tensor) -> Any:
    model = Model(config)
    load_f32(model, weights)
    hidden = model(tokens, torch.arange(T).expand(B, T), WHOLE)
    scale = 1.0 / int((targets != -100).sum())
    loss = cross_entropy(hidden, model.output_weight, targets, scale, config.logit_cap)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach()), model


def reference_gradients(opened: OpenedWeights, tokens: torch.Tensor, targets: torch.Tensor) -> Any:
    """Return the loss of transformers, and its gradients under our names, through a folder of gradients."""
    model = opened_reference(opened.path.parent)
    loss = torch.nn.functional.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten())
    loss.backward()  # type: ignore[no-untyped-call]
    plus_one = "RMSNorm" if "gemma" in opened.config.architecture else "none"
    for module in model.modules():
        less = 1.0 if type(module).__name__.endswith(plus_one) else 0.0  # reading adds 1 to these gains
        for parameter in module.parameters(recurse=False):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.data = gradient.clone() - less
    folder = opened.path.parent.with_name("gradients")
    model.save_pretrained(folder)
    return float(loss.detach()), open_weights(folder).weights


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MADE)
def test_loss_and_every_gradient_agree_with_transformers(family: str, tmp_path: Path) -> None:
    opened = open_weights(made_folder(tmp_path / "model", family, tokenizer=False))
    rope = opened.config.rope
    config = opened.config
    if (
        rope is not None and rope.long_divisors is not None
    ):  # transformers takes the short ones for a short text
        config = replace(config, n_positions=rope.original_context)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, config.vocab_size, (B, T), generator=generator)
    targets = torch.full_like(tokens, -100)
    targets[:, :-1] = tokens[:, 1:]
    targets[0, :7] = -100
    expected, gradients = reference_gradients(opened, tokens, targets)
    loss, model = loss_of(config, opened.weights, tokens, targets)
    assert abs(loss - expected) < 1e-5
    named = dict(model.named_parameters())
    assert set(named) == set(tensor_shapes(config))
    for name, parameter in named.items():
        theirs = np.asarray(gradients[name])
        largest = float(np.abs(theirs).max())
        assert parameter.grad is not None
        error = float(np.abs(parameter.grad.numpy() - theirs).max())
        assert error <= 1e-4 * largest + 1e-7, (name, error, largest)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MADE)
def test_hidden_states_are_the_engines(family: str, tmp_path: Path) -> None:
    opened = open_weights(made_folder(tmp_path / "model", family, tokenizer=False))
    model = Model(opened.config)
    load_f32(model, opened.weights)
    tokens = torch.randint(0, opened.config.vocab_size, (1, T), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        hidden = model(tokens, torch.arange(T)[None], WHOLE)
        logits = hidden @ model.output_weight.T
        if opened.config.logit_cap is not None:
            logits = opened.config.logit_cap * torch.tanh(logits / opened.config.logit_cap)
    engine = Engine(opened.config, "f32")
    engine.load(opened.weights)
    ours = engine.logits([(engine.new_sequence(), tokens[0].tolist())], rows="all")
    assert np.abs(ours - logits[0].numpy()).max() < 1e-3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", MADE)
def test_bf16_and_packed_documents_are_close_to_f32(family: str, tmp_path: Path) -> None:
    """Every document of a packed row is computed as if it were alone; bfloat16 differs little."""
    opened = open_weights(made_folder(tmp_path / "model", family, tokenizer=False))
    model = Model(opened.config)
    load_f32(model, opened.weights)
    tokens = torch.randint(0, opened.config.vocab_size, (1, T), generator=torch.Generator().manual_seed(2))
    documents = np.array([[0] * 22 + [1] * (T - 22)], np.int32)
    positions = torch.cat([torch.arange(22), torch.arange(T - 22)])[None]
    with torch.no_grad():
        packed = model(tokens, positions, spans_of(documents))
        first = model(tokens[:, :22], positions[:, :22], WHOLE)
        second = model(tokens[:, 22:], positions[:, 22:], WHOLE)
        assert torch.allclose(packed, torch.cat([first, second], 1), atol=1e-4)
    targets = tokens.roll(-1, 1)
    losses = []
    for rounds in (False, True):
        if rounds:
            to_bf16(model)
        model.zero_grad()
        hidden = model(tokens, positions, spans_of(documents))
        loss = cross_entropy(hidden, model.output_weight, targets, 1 / T, opened.config.logit_cap)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert abs(losses[1] - losses[0]) < 0.05 * losses[0]
