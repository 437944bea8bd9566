"""Devices other than the processor: refused in one line if missing; all tensors of a step move along.

No such device computes here: what it would compute is not tested.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pophood.errors import BadInput, NotFound
from pophood.train.data.dataset.packing import Batch
from pophood.train.defaults import for_device, require_device
from pophood.train.model.loss import BatchTensors, CrossEntropyFunction, hidden_states
from pophood.train.model.precision import dtype_of
from pophood.train.model.transformer import Model
from pophood.train.run.plan import refuse_unfit, remedies
from pophood.train.run.scratch import scratch_config
from pophood.train.settings import TrainSettings
from pophood.train.tune import tune

THERE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize("device", [name for name, there in THERE.items() if not there])
def test_a_device_that_is_not_here_gets_one_line(device: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("The sun sets.\n" * 40, encoding="utf-8")
    with pytest.raises(NotFound, match=rf"finds no {device} device here, only cpu: leave out --device, or"):
        tune(None, tmp_path / "notes.txt", tmp_path / "out", from_scratch="gpt2-nano", device=device)
    assert not (tmp_path / "out").exists()


def test_what_only_the_processor_does_is_refused() -> None:
    cuda = TrainSettings(device="cuda")
    with pytest.raises(BadInput, match="no device is called 'gpu'; wanted one of cpu, cuda, mps"):
        for_device(replace(cuda, device="gpu"))
    with pytest.raises(BadInput, match="an 8-bit base is for the processor, got device cuda"):
        for_device(replace(cuda, base="q8"))
    with pytest.raises(BadInput, match="bf16 is for the processor, got device cuda"):
        for_device(replace(cuda, precision="bf16"))
    assert dtype_of(cuda) is torch.float32
    assert not any("q8" in remedy for remedy in remedies(cuda))
    refuse_unfit(replace(scratch_config("gpt2-nano", 300), n_layer=10**9), cuda)  # not the processor's memory
    here = TrainSettings("last", cache_limit=3.0)
    assert for_device(here) is here
    require_device("cpu")


def test_there_it_trains_in_float32_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert for_device(TrainSettings("last", device="cuda", cache_limit=3.0)).cache_limit == 0.0
    monkeypatch.setenv("RANK", "0")
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match="several processes train on the processor, got device cuda"):
        for_device(TrainSettings(device="cuda"))


def packed() -> Batch:
    """Return a batch of two rows, one of which has two documents."""
    ids = np.arange(64, dtype=np.int64).reshape(2, 32)
    documents = np.zeros((2, 32), np.int32)
    documents[1, 20:] = 1
    positions = np.tile(np.arange(32, dtype=np.int64), (2, 1))
    positions[1, 20:] -= 20
    return Batch(ids, ids + 1, positions, documents, ("a", "b"))


def test_a_batch_moves_whole() -> None:
    batch = BatchTensors.of(packed())
    groups = batch.spans
    assert groups
    batch = batch._replace(states=torch.zeros(2, 32, 4), first=3)
    there = batch.to("meta")
    moved = [there.tokens, there.targets, there.positions, there.states]
    moved += [x for g in there.spans for x in (g.gather, g.source, g.target)]
    assert {x.device.type for x in moved if x is not None} == {"meta"}
    assert len(moved) == 4 + 3 * len(groups)
    assert there.first == 3


@pytest.mark.parametrize("size", ["gpt2-nano", "llama-tiny"])
def test_model_and_loss_stay_on_their_device(size: str) -> None:
    """Torch's "meta" device has shapes without values, and refuses to mix with tensors in memory."""
    model = Model(scratch_config(size, 300)).to("meta")
    batch = BatchTensors.of(packed()).to("meta")
    hidden = hidden_states(model, batch)
    loss: Any = CrossEntropyFunction.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1), model.output_weight, batch.targets.flatten(), 1.0, None
    )
    assert {hidden.device.type, loss.device.type} == {"meta"}
