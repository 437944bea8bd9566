"""One side of benchmarks/same_learning.py: the whole run, a line of JSON for every step and evaluation.

Both sides get the batches of `Stretches` and the learning rates of pophood's schedule. The peer's loop is
that of transformers' Trainer: forward, backward, clip_grad_norm_, fused AdamW, gradients set to None.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _sides import Ids, say, stretches

from pophood.model.bundle import Bundle, open_bundle
from pophood.train.data.dataset.packing import Batch
from pophood.train.loop.optimizer import learning_rate
from pophood.train.settings import TrainSettings


class Stretches:
    """Batches of whole rows, one document each; every epoch in an order of its own, or always in the same."""

    def __init__(self, rows: Ids, batch_size: int, *, shuffle: bool) -> None:
        self.rows, self.batch_size, self.shuffle = rows, batch_size, shuffle

    def batches_per_epoch(self, epoch: int) -> int:
        """Whole batches only."""
        return len(self.rows) // self.batch_size

    def batch(self, epoch: int, index: int) -> Batch:
        """One batch."""
        order = np.random.default_rng([7, epoch]).permutation(len(self.rows))
        chosen = order if self.shuffle else np.arange(len(self.rows))
        ids = self.rows[chosen[index * self.batch_size : (index + 1) * self.batch_size]]
        tokens, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int64), tokens.shape).copy()
        return Batch(tokens, targets, positions, np.zeros(tokens.shape, np.int32), ("text",) * len(ids))

    def __iter__(self) -> Iterator[Batch]:
        for epoch in range(1 << 30):
            for index in range(self.batches_per_epoch(epoch)):
                yield self.batch(epoch, index)


def ours(bundle: Bundle, train: Stretches, held: Stretches, settings: TrainSettings) -> None:
    """pophood's run, as its Trainer makes it."""
    from pophood.train.events import Evaluated, Step
    from pophood.train.loop.trainer import Trainer
    from pophood.train.model.build import build_model

    for event in Trainer(build_model(bundle, settings), train, held, settings).run():
        if isinstance(event, Step):
            say(step=event.step, loss=event.loss, seconds=event.seconds)
        elif isinstance(event, Evaluated):
            say(step=event.step, validation=event.loss)


def theirs(folder: Path, train: Stretches, held: Stretches, settings: TrainSettings) -> None:
    """transformers' run in float32."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.train()
    trained = list(model.parameters())
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=settings.rate, betas=settings.betas, eps=settings.epsilon, fused=True
    )

    def loss_of(batch: Batch) -> torch.Tensor:
        tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        return model(input_ids=tokens, labels=targets, shift_labels=targets).loss  # type: ignore[no-any-return]

    def validation(step: int) -> None:
        model.eval()
        with torch.no_grad():
            losses = [loss_of(held.batch(0, i)).item() for i in range(held.batches_per_epoch(0))]
        model.train()
        say(step=step, validation=sum(losses) / len(losses))

    assert settings.steps is not None
    validation(0)
    begin, batches = time.perf_counter(), iter(train)
    for step in range(settings.steps):
        loss = loss_of(next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.steps, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        say(step=step + 1, loss=loss.item(), seconds=time.perf_counter() - begin)
    validation(settings.steps)


def main() -> None:
    """Run one side."""
    said = json.loads(sys.argv[1])
    torch.set_num_threads(said["threads"])
    settings = TrainSettings(
        method="full",
        batch_size=said["batch"],
        length=said["length"],
        learning_rate=said["rate"],
        warmup=said["warmup"] / said["steps"],
        steps=said["steps"],
        evaluations=1,
        precision=said["precision"],
    )
    bundle = open_bundle(said["folder"])
    rows = stretches(bundle.tokenizer, Path(said["text"]), said["length"])
    kept = max(said["batch"], min(said["held"], len(rows) // 10)) // said["batch"] * said["batch"]
    train = Stretches(rows[:-kept], said["batch"], shuffle=True)
    held = Stretches(rows[-kept:], said["batch"], shuffle=False)
    say(rows=len(rows) - kept, held=kept)
    if said["side"] == "pophood":
        ours(bundle, train, held, settings)
    else:
        theirs(Path(said["folder"]), train, held, settings)


if __name__ == "__main__":
    main()
