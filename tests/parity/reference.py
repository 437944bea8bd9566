"""The comparison itself: one prompt through pophood's engine and through transformers, block by block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from pophood.model.bundle import open_weights
from pophood.model.engine import Engine, StoredWeights
from pophood.model.score import greedy
from tests.tiny import reference

Floats = NDArray[np.float32]
GREEDY = 64


@dataclass(frozen=True)
class Truth:
    """The results of transformers in f32: blocks' outputs [L][T, C], logits [T, V], greedy ids."""

    prompt: list[int]
    blocks: list[Floats]
    logits: Floats
    greedy: list[int]


@dataclass(frozen=True)
class Difference:
    """How far an engine is from the truth; `block` is the first one that is off by more than `RESIDUAL`."""

    residual: float  # largest max|a-b| / max|b| of a position, over all blocks
    block: int | None
    logits: float  # largest absolute difference
    greedy: int  # tokens that agree, of GREEDY

    @property
    def equal(self) -> bool:
        """Within the bars of the project."""
        return self.residual <= RESIDUAL and self.logits <= LOGITS and self.greedy == GREEDY


RESIDUAL, LOGITS = 1e-4, 1e-3


def truth_of(folder: Path, prompt_length: int = 24, seed: int = 0) -> Truth:
    """Run transformers on the folder's model: prompt, every block's output, and 64 greedy tokens."""
    model = reference(folder)
    layers = model.transformer.h if "transformer" in dict(model.named_children()) else model.model.layers
    return truth_of_model(model, layers, prompt_length, seed)


def truth_of_model(model: Any, layers: Iterable[Any], prompt_length: int, seed: int = 0) -> Truth:
    """Run a model of transformers on random ids; `layers` are its blocks."""
    import torch

    prompt = np.random.default_rng(seed).integers(0, model.config.vocab_size, prompt_length).tolist()
    blocks: list[Floats] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        blocks.append(hidden[0].numpy().copy())

    handles = [layer.register_forward_hook(keep) for layer in layers]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0].numpy()
        for handle in handles:
            handle.remove()
        ids, cache = torch.tensor([prompt]), None
        greedy: list[int] = []
        for _ in range(GREEDY):
            step = model(ids, past_key_values=cache, use_cache=True)
            cache, ids = step.past_key_values, step.logits[:, -1:].argmax(-1)
            greedy.append(int(ids[0, 0]))
    return Truth(prompt, blocks, logits, greedy)


def engine_of(path: Path, threads: int | None = None) -> Engine:
    """An engine with the model of a folder or a GGUF file."""
    opened = open_weights(path)
    return loaded(opened.config, opened.weights, threads)


def loaded(config: ModelConfig, weights: StoredWeights, threads: int | None = None) -> Engine:
    """An engine with these weights."""
    engine = Engine(config, "f32", threads)
    engine.load(weights)
    return engine


def compare(engine: Engine, truth: Truth) -> Difference:
    """Measure an engine against the truth."""
    with engine.sequence() as sequence:
        result = engine.forward([(sequence, truth.prompt)], rows="all", taps=["blocks.*.resid_post"])
    errors = [_relative(result.taps[f"blocks.{i}.resid_post"], block) for i, block in enumerate(truth.blocks)]
    first = next((i for i, error in enumerate(errors) if not error <= RESIDUAL), None)
    return Difference(
        residual=max(errors),
        block=first,
        logits=float(np.abs(result.output - truth.logits).max()),
        greedy=_agreeing(greedy_ids(engine, truth.prompt), truth.greedy),
    )


def greedy_ids(engine: Engine, prompt: list[int], n: int = GREEDY) -> list[int]:
    """The likeliest token, n times; decoded one at a time."""
    return [tokens[0] for tokens in greedy(engine, [prompt], n)]


def _relative(a: Floats, b: Floats) -> float:
    """max|a-b| over max|b| per position, the worst position."""
    return float((np.abs(a - b).max(axis=1) / np.abs(b).max(axis=1)).max())


def _agreeing(a: list[int], b: list[int]) -> int:
    return sum(x == y for x, y in zip(a, b, strict=True))
