"""bfloat16 with float32 masters: exact splitting, torch's updates, and the learning curve of float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pophood.train.checkpoint.save_load import load, save
from pophood.train.events import Step
from pophood.train.loop.optimizer import SplitMasterAdamW, clip, make_optimizer
from pophood.train.loop.trainer import Trainer
from pophood.train.model.attention import WHOLE, spans_of
from pophood.train.model.linear import matmul
from pophood.train.model.loss import cross_entropy
from pophood.train.model.precision import dtype_of, join_master, split_master, to_bf16
from pophood.train.model.torch_private import has_bf16_instructions
from pophood.train.settings import TrainSettings
from tests.train.hashes import state_hash
from tests.train.small import Case, model_of, trainer_of


def bf16_trainer(case: Case, data: Path, **changes: object) -> Trainer:
    """A trainer whose model computes in bfloat16."""
    trainer = trainer_of(case, data, **changes)  # type: ignore[arg-type]
    to_bf16(trainer.model)
    trainer.optimizer = make_optimizer(trainer.model, trainer.settings)
    return trainer


def test_weight_and_remainder_are_the_master_to_the_bit() -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (100_000,), dtype=torch.int64).to(torch.int32)
    master = bits.view(torch.float32)
    master = master[torch.isfinite(master) & (master.abs() < 3e38)]
    weight, remainder = split_master(master)
    assert torch.equal(join_master(weight, remainder).view(torch.int32), master.view(torch.int32))
    assert ((weight.float() - master).abs() <= (master.to(torch.bfloat16).float() - master).abs()).all()


def test_an_update_agrees_with_torch_on_the_masters() -> None:
    model = model_of(Case())
    twin = model_of(Case())
    settings = TrainSettings(method="full", learning_rate=3e-3)
    to_bf16(model)
    ours, theirs = make_optimizer(model, settings), make_optimizer(twin, settings)
    assert isinstance(ours, SplitMasterAdamW)
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        for (_, mine), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=generator).to(torch.bfloat16)
            other.grad = mine.grad.float()
        assert clip(ours, 1.0) == pytest.approx(clip(theirs, 1.0), rel=5e-3)
        ours.step()
        theirs.step()
    for (name, mine), (_, other) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        master = join_master(mine.detach(), model.master_remainder[name])
        assert (master - other).abs().max() < 1e-4, name  # 5 steps of 3e-3; the norm for clipping is rounded


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gradients_are_those_of_f32_within_rounding(family: str) -> None:
    model, twin = model_of(Case(family=family)), model_of(Case(family=family))
    to_bf16(model)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 1000, (3, 32), generator=generator)
    positions = torch.arange(32).expand(3, 32)
    losses = []
    for one in (model, twin):
        loss = cross_entropy(one(tokens, positions, WHOLE), one.output_weight, tokens.roll(-1, 1), 1 / 96)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
    named = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith("attn.k.bias"):
            continue  # exactly zero in theory: both sides are rounding errors
        ours, theirs = parameter.grad, named[name].grad
        assert ours is not None and theirs is not None
        assert (ours.float() - theirs).norm() < 0.1 * theirs.norm(), name  # large activations: 0.06 to 0.08


@pytest.mark.parametrize("columns", [True, False])
def test_the_native_loss_agrees_with_torch(columns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pophood.train.model.loss.logits_as_columns", lambda: columns)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(2, 700, 16, generator=generator).to(torch.bfloat16).requires_grad_()
    weight = torch.randn(197, 16, generator=generator).to(torch.bfloat16).requires_grad_()
    targets = torch.randint(0, 197, (2, 700), generator=generator)
    targets[0, ::3] = -100
    exact = torch.nn.functional.cross_entropy(
        (hidden.float() @ weight.float().T).flatten(0, 1), targets.flatten(), reduction="sum"
    )
    theirs = torch.autograd.grad(exact * 0.25, (hidden, weight))
    loss = cross_entropy(hidden, weight, targets, 0.25)
    ours = torch.autograd.grad(loss, (hidden, weight))
    assert float(loss.detach()) == pytest.approx(0.25 * float(exact.detach()), rel=2e-3)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.float() - b.float()).norm() < 0.02 * b.float().norm()


def test_a_product_in_chunks_equals_the_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(1100, 24, generator=generator).to(torch.bfloat16)
    b = torch.randn(24, 40, generator=generator).to(torch.bfloat16)
    bias = torch.randn(40, generator=generator).to(torch.bfloat16)
    for shift in (None, bias):
        whole = a.float() @ b.float() + (0 if shift is None else shift.float())
        assert (matmul(a, b, shift).float() - whole).abs().max() <= 2**-7 * whole.abs().max()


def test_documents_of_one_row_do_not_see_each_other_in_bf16() -> None:
    import numpy as np

    model = model_of(Case())
    to_bf16(model)
    tokens = torch.arange(32)[None] * 7
    documents = np.array([[0] * 20 + [1] * 12], np.int32)
    positions = torch.tensor([[*range(20), *range(12)]])
    packed = model(tokens, positions, spans_of(documents))
    alone = model(tokens[:, 20:], torch.arange(12)[None], WHOLE)
    assert (packed[:, 20:] - alone).abs().max() < 0.05 * alone.abs().max()


@pytest.mark.parametrize("method", ["full", "last", "lora"])
def test_the_learning_curve_is_that_of_f32(method: str, tmp_path: Path) -> None:
    case = Case(method=method, steps=40)  # type: ignore[arg-type]
    exact = [event.loss for event in trainer_of(case, tmp_path).run() if isinstance(event, Step)]
    ours = [event.loss for event in bf16_trainer(case, tmp_path).run() if isinstance(event, Step)]
    assert exact[-1] < exact[0]
    assert ours == pytest.approx(exact, rel=0.01)


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    case = Case(dropout=0.1)
    whole = bf16_trainer(case, tmp_path)
    states = [
        save(tmp_path / "saved", whole.state())
        for event in whole.run()
        if isinstance(event, Step) and event.step == 6
    ]
    again = bf16_trainer(case, tmp_path)
    again.restore(*load(states[0]))
    for _ in again.run():
        pass
    assert state_hash(again.state()) == state_hash(whole.state())


def test_the_precision_is_the_requested_one() -> None:
    assert dtype_of(TrainSettings(precision="f32")) is torch.float32
    assert dtype_of(TrainSettings(precision="bf16")) is torch.bfloat16
    best = torch.bfloat16 if has_bf16_instructions() else torch.float32
    assert dtype_of(TrainSettings()) is best


def test_documents_of_all_lengths_need_few_shapes() -> None:
    random = np.random.default_rng(4)
    shapes = set()
    for _ in range(200):
        numbers = np.cumsum(random.random((4, 256)) < random.uniform(0.005, 0.2), axis=1).astype(np.int32)
        shapes |= {tuple(group.gather.shape) for group in spans_of(numbers)}
    assert len(shapes) < 120  # out of up to a thousand
    assert {n for shape in shapes for n in shape} <= {1, 2, 3} | {k << n for k in (2, 3) for n in range(1, 9)}
