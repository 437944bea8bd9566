"""One side of benchmarks/trunk.py: makes its model once, then answers each line with a step's seconds.

The peer's inner loop is that of transformers' Trainer with its defaults, its tensors made beforehand:
forward with labels, backward, clip_grad_norm_ 1.0, fused AdamW without decay, gradients set to None.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import KEPT
from _sides import TEXT, say

from pophood.model.bundle import Bundle, open_bundle
from pophood.train.data import IGNORED, Batch, DataOptions, Examples, PackedSampler, open_data
from pophood.train.settings import TrainSettings

BATCHES = 12  # of an epoch
Step = Callable[[], object]


class Ends(PackedSampler):
    """A sampler in whose rows only the last `share` is learned, as if the rest were prompts."""

    share = 1.0

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch."""
        batch = super().batch(epoch, index)
        targets = batch.targets.copy()
        targets[:, : round(targets.shape[1] * (1 - self.share))] = IGNORED
        return replace(batch, targets=targets)


def sampler_of(bundle: Bundle, settings: TrainSettings, share: float) -> Ends:
    """Batches of whole rows, each one stretch of the text."""
    options = DataOptions(validation=0, cache=KEPT / "data")
    store = open_data(TEXT, bundle.tokenizer, None, options).train.store
    document = store.documents[:1].copy()
    positions = BATCHES * settings.batch_size * settings.length
    assert document["end"][0] - document["start"][0] > positions, "the text is too short"
    document["end"] = document["start"] + positions + 1
    document["last"], document["learned"] = document["end"] - 1, positions
    sampler = Ends(Examples(store, document, length=settings.length), settings.batch_size, settings.length, 0)
    sampler.share = share
    return sampler


def ours(bundle: Bundle, sampler: Ends, settings: TrainSettings, kept: Path) -> Step:
    """pophood's step in its second epoch: what lies below the last blocks is kept."""
    from pophood.train.loop.activation_cache import ActivationCaches
    from pophood.train.loop.trainer import Trainer
    from pophood.train.model.build import build_model

    trainer = Trainer(build_model(bundle, settings), sampler, None, settings)
    trainer.caches = ActivationCaches.of(trainer.model, sampler, None, settings)
    assert trainer.caches is not None
    trainer.caches.open(kept, several_epochs=True)
    for index in range(BATCHES):
        trainer.tensors(sampler.batch(0, index))

    def refuse(*_: object) -> None:
        sys.exit("a frozen block computed in the second epoch: the kept states are not used")

    trainer.model.blocks[0].register_forward_hook(refuse)
    trainer.steps, trainer.epoch = settings.steps or 0, 1
    return lambda: trainer._one_step(time.perf_counter()).loss


def theirs(folder: Path, sampler: Ends, settings: TrainSettings) -> Step:
    """transformers' step in float32, the other blocks frozen."""
    from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.requires_grad_(False)
    for block in model.transformer.h[-settings.last_blocks :]:
        block.requires_grad_(True)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.rate, eps=1e-8, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, settings.steps or 0)
    batches = [sampler.batch(1, index) for index in range(BATCHES)]
    tensors = [(torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)) for batch in batches]
    at = 0

    def step() -> float:
        nonlocal at
        ids, targets = tensors[at % BATCHES]
        at += 1
        loss = model(input_ids=ids, labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.item())

    return step


def main() -> None:
    """Serve one side."""
    said = json.loads(sys.argv[1])
    torch.set_num_threads(said["threads"])
    settings = TrainSettings(
        method="last",
        last_blocks=said["blocks"],
        steps=1_000_000,
        batch_size=said["batch"],
        length=said["length"],
        weight_decay=0.0,
        warmup=0.0,
        cache_limit=1.0,
    )
    bundle = open_bundle(said["folder"])
    sampler = sampler_of(bundle, settings, said["share"])
    with tempfile.TemporaryDirectory() as kept:
        if said["side"] == "pophood":
            work = ours(bundle, sampler, settings, Path(kept))
        else:
            work = theirs(Path(said["folder"]), sampler, settings)
        learned = int(np.count_nonzero(sampler.batch(0, 0).targets != IGNORED))
        say(learned=learned)
        for _ in sys.stdin:
            begin = time.perf_counter()
            loss = work()
            say(seconds=time.perf_counter() - begin, loss=loss)


if __name__ == "__main__":
    main()
