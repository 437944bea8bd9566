"""One side of benchmarks/tune.py: builds its model once, then answers each line with a step's seconds.

The peers' inner loop is that of transformers' Trainer with its defaults: forward with labels, backward,
clip_grad_norm_ 1.0, AdamW (fused, betas 0.9 and 0.999, no decay), a linear schedule, gradients set to None.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _models import gpt2_folder

VOCABULARY = 50_257
LINEAR = ["c_attn", "c_proj", "c_fc"]  # GPT-2's names; its c_attn holds q, k and v


def ours(method: str, batch: int, length: int, dropout: float, threads: int) -> Callable[[], object]:
    """pophood's step, by its own path."""
    from pophood.model.bundle import open_bundle
    from pophood.train.data.dataset.packing import Batch
    from pophood.train.loop.trainer import Trainer
    from pophood.train.model.build import build_model
    from pophood.train.settings import TrainSettings

    ids = rows(batch, length)
    settings = TrainSettings(
        method=method,  # type: ignore[arg-type]
        steps=1_000_000,
        batch_size=batch,
        length=length,
        dropout=dropout,
        weight_decay=0.0,
        learning_rate=5e-5,
    )
    positions = np.broadcast_to(np.arange(length), ids[:, :-1].shape).astype(np.int64)
    one = Batch(
        np.ascontiguousarray(ids[:, :-1]),
        np.ascontiguousarray(ids[:, 1:]),
        positions,
        np.zeros(positions.shape, np.int32),
        ("random",),
    )

    class Same:
        def batch(self, epoch: int, index: int) -> Batch:
            return one

        def batches_per_epoch(self, epoch: int) -> int:
            return 1_000_000

    trainer = Trainer(build_model(open_bundle(gpt2_folder()), settings), Same(), None, settings)
    trainer.steps = settings.steps or 0
    return lambda: trainer._one_step(time.perf_counter())


def peers(side: str, batch: int, length: int, dropout: float) -> Callable[[], object]:
    """transformers' or PEFT's step, in f32 or under autocast."""
    from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gpt2_folder(), dtype=torch.float32, attn_implementation="sdpa", **rates
    )
    if side.startswith("peft"):
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=8, lora_alpha=16, target_modules=LINEAR, fan_in_fan_out=True)
        model = get_peft_model(model, lora)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 1_000_000)
    ids = torch.from_numpy(np.ascontiguousarray(rows(batch, length)[:, :-1]))

    def step() -> None:
        half = side.endswith("bf16")
        with torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gemm(batch: int, length: int) -> Callable[[], float]:
    """FLOP/s of plain bfloat16 products over the step's own shapes, forward, dX and dW: best of three."""
    shapes = {(768, 768): 48, (768, 3072): 12, (3072, 768): 12, (768, VOCABULARY): 1}

    def rate() -> float:
        seconds = work = 0.0
        for (k, n), count in shapes.items():
            x, w, g = (torch.randn(s).bfloat16() for s in ((batch * length, k), (n, k), (batch * length, n)))
            for product in (lambda: x @ w.T, lambda: g @ w, lambda: g.T @ x):  # noqa: B023 - called at once
                seconds += count * min(timed(product) for _ in range(3))
                work += count * 2.0 * batch * length * k * n
        return work / seconds

    return rate


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def rows(batch: int, length: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Random ids [batch, length + 1]."""
    return np.random.default_rng(0).integers(0, VOCABULARY, (batch, length + 1))


def anonymous() -> int:
    """Resident memory less mapped files, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon:"))


def main() -> None:
    """Serve one side."""
    import threading

    said = json.loads(sys.argv[1])
    side, batch, length, dropout = said["side"], said["batch"], said["length"], said["dropout"]
    torch.set_num_threads(said["threads"])
    torch.manual_seed(0)
    peak = [0]

    def watch() -> None:
        while True:
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    if side == "gemm":
        work: Callable[[], object] = gemm(batch, length)
    elif side.startswith("pophood"):
        work = ours(side.removeprefix("pophood-"), batch, length, dropout, said["threads"])
    else:
        work = peers(side, batch, length, dropout)
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - begin
        print(
            json.dumps({"seconds": seconds, "peak": peak[0], "result": result if side == "gemm" else None}),
            flush=True,
        )


if __name__ == "__main__":
    main()
