"""Measures the cost of an 8-bit base before training starts: the loss with and without it, and the memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pophood.config import ModelConfig
from pophood.train.data.dataset.packing import Batches
from pophood.train.model.int8_linear import Arrays, float32_tensor, int8_matrix_bytes
from pophood.train.model.loss import BatchTensors, cross_entropy, evaluating
from pophood.train.model.transformer import DropoutRates, Model, TransformerBlock

POSITIONS = 2048  # measured, at least


def quantization_report(model: Model, weights: Arrays, batches: Batches) -> str:
    """Describe in one line what 8 bits cost: loss and memory, measured on the first batches."""
    chosen: list[BatchTensors] = []
    for index in range(batches.batches_per_epoch(0)):
        chosen.append(BatchTensors.of(batches.batch(0, index)))
        if sum(batch.tokens.numel() for batch in chosen) >= POSITIONS:
            break
    quantised, full = quantized_and_full_loss(model, weights, chosen)
    int8_bytes, float32_bytes = int8_matrix_bytes(model)
    return (
        f"8-bit base: loss {quantised:.4f} before the first step, {full:.4f} without"
        f" ({quantised - full:+.4f}), on the same {sum(batch.learned for batch in chosen):,} tokens;"
        f" its matrices take {int8_bytes / 2**20:,.0f} MiB, not {float32_bytes / 2**20:,.0f}"
    )


def quantized_and_full_loss(
    model: Model, weights: Arrays, batches: Sequence[BatchTensors]
) -> tuple[float, float]:
    """Return the mean loss (nats) of an untrained int8 model, and of the same model with `weights`.

    Only one block at a time exists in float32, so this works where the full model would not fit into memory.
    """
    with torch.no_grad(), evaluating(model):
        streams = [model.embed(batch.tokens, batch.positions) for batch in batches]
        quantised = [
            model.from_block(x, batch.positions, batch.spans)
            for x, batch in zip(streams, batches, strict=True)
        ]
        for i, block in enumerate(model.blocks):
            try:
                model.blocks[i] = _full_block(model.config, i, weights, streams[0])
                streams = [
                    model.from_block(x, batch.positions, batch.spans, first=i, last=i + 1)
                    for x, batch in zip(streams, batches, strict=True)
                ]
            finally:
                model.blocks[i] = block
        learned = max(sum(batch.learned for batch in batches), 1)
        sums = [
            sum(
                float(cross_entropy(hidden, model.output_weight, batch.targets, 1.0, model.config.logit_cap))
                for hidden, batch in zip(outputs, batches, strict=True)
            )
            for outputs in (quantised, [model.finish(x) for x in streams])
        ]
    return sums[0] / learned, sums[1] / learned


def _full_block(config: ModelConfig, number: int, weights: Arrays, like: torch.Tensor) -> TransformerBlock:
    with torch.device("meta"):
        block = TransformerBlock(config, DropoutRates(), number)
    names = [name for name, _ in block.named_parameters()]
    state = {name: float32_tensor(weights, f"blocks.{number}.{name}") for name in names}
    block.load_state_dict(state, assign=True)
    return block.requires_grad_(False).to(like).eval()
