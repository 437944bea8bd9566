"""The recipe of TransformerLens' golden arrays: models, prompt, and the selection of stored numbers.

Both sides read this: `write_transformer_lens.py` in an environment of its own, and the test. Whole arrays
would be tens of megabytes, so of each one its shape, its norm, the largest number of every position and some
values at seeded places are kept.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.config import ModelConfig
from tests.tiny_values import Values, gpt2_config, tiny_config

Floats = NDArray[np.float32]
FOLDER = Path(__file__).parent
TOKENS, SAMPLES, SEED = 10, 112, 3
PAIRS = ("hook_attn_scores", "hook_pattern")  # [H, query, key]; every other array begins with the position
_SMALL: dict[str, Any] = {"n_embd": 192, "n_kv_head": 2, "n_inner": 500}


@dataclass(frozen=True, slots=True)
class Case:
    """One random model and one prompt."""

    name: str
    config: ModelConfig

    @property
    def values(self) -> Values:
        """Return its tensors by canonical name."""
        return Values(self.config, SEED)

    @property
    def prompt(self) -> list[int]:
        """Return token ids; the first one comes again at the end, so that positions matter."""
        ids: list[int] = np.random.default_rng(SEED).integers(0, self.config.vocab_size, TOKENS).tolist()
        return [*ids[:-1], ids[0]]

    @property
    def path(self) -> Path:
        """The file of its golden numbers."""
        return FOLDER / f"{self.name}.json"


CASES = {
    case.name: case
    for case in (
        Case("gpt2-small", gpt2_config("gpt2")),  # the published shape
        Case("llama", tiny_config("llama", **_SMALL, n_layer=3, n_head=8, head_dim=24)),  # scaled rotation
        Case("qwen3", tiny_config("qwen3", **_SMALL, n_layer=2, n_head=6, head_dim=48)),
        Case("qwen2", tiny_config("qwen2", **_SMALL, n_layer=1, n_head=6, head_dim=32)),
    )
}


@dataclass(frozen=True, slots=True)
class Golden:
    """The stored part of one array: `largest` is max|x| of each position, `values` are those at `places`."""

    shape: tuple[int, ...]
    norm: float
    largest: Floats
    values: Floats

    def as_json(self) -> dict[str, Any]:
        """Return readable numbers, and arrays as base64 of little-endian float32."""
        packed = {name: _packed(getattr(self, name)) for name in ("largest", "values")}
        return {"shape": list(self.shape), "norm": round(self.norm, 9)} | packed


def golden(hook: str, array: Floats) -> Golden:
    """Select the stored part of an array without its batch axis."""
    finite = np.where(np.isfinite(array), array, 0)  # masked scores are minus infinity
    by_position = np.moveaxis(finite, position_axis(hook), 0).reshape(array.shape[position_axis(hook)], -1)
    return Golden(
        array.shape,
        float(np.linalg.norm(finite.astype(np.float64))),
        np.abs(by_position).max(axis=1),
        array[places(hook, array.shape)],
    )


def places(hook: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """Return seeded random places of an array, one index array per axis; masked cells are left out."""
    random = np.random.default_rng(zlib.crc32(hook.encode()))
    drawn = [random.integers(0, size, SAMPLES) for size in shape]
    if hook.endswith(PAIRS):
        drawn[2] = np.minimum(drawn[1], drawn[2])
    return tuple(drawn)


def position_axis(hook: str) -> int:
    """Return the axis of an array that is the position (of the query)."""
    return 1 if hook.endswith(PAIRS) else 0


def read_golden(case: Case) -> dict[str, Golden]:
    """Return the golden numbers of a case by TransformerLens' names."""
    stored = json.loads(case.path.read_text(encoding="utf-8"))
    return {
        hook: Golden(tuple(one["shape"]), one["norm"], _unpacked(one["largest"]), _unpacked(one["values"]))
        for hook, one in stored["hooks"].items()
    }


def write_golden(case: Case, hooks: dict[str, Golden], versions: dict[str, str]) -> None:
    """Write one line per array, so that a diff is readable."""
    lines = [f"{json.dumps(hook)}: {json.dumps(one.as_json())}" for hook, one in hooks.items()]
    head = f'"versions": {json.dumps(versions)},\n"prompt": {json.dumps(case.prompt)}'
    body = ",\n".join(lines)
    case.path.write_text(f'{{\n{head},\n"hooks": {{\n{body}\n}}\n}}\n', encoding="utf-8")


def _packed(array: Floats) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f4")
