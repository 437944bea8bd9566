"""The models of `peers.py`: each as a Hugging Face folder, which peers convert, and as GGUF in a precision.

SmolLM2-135M-Instruct has learned weights, those of its Q4_1 file; Qwen2.5-0.5B's and GPT-2 small's published
shapes have random ones. Everything is written once and kept in build/benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from _models import KEPT, QWEN, gpt2_folder, gpt2_gguf, quantised_gguf, qwen_gguf, smollm2_gguf
from _sides import smollm2_folder

from tests.tiny import tiny_folder

Pair = tuple[float, float]  # bar and aim of a ratio
Maker = Callable[[], Path]


def qwen_folder() -> Path:
    """Qwen2.5-0.5B's shape in bfloat16, as Qwen publishes it; the values are those of `qwen_gguf`."""
    path = KEPT / "qwen-folder"
    if not (path / "model.safetensors").exists():
        tiny_folder(path, "qwen2", seed=4, dtype="BF16", ignored=False, **QWEN)
    return path


@dataclass(frozen=True)
class Model:
    """A model: its folder, its GGUF file in F32, and the type of the file for each precision of weights.

    `prompt` is a text as ids, after which greedy tokens are compared; `bar` is that of prefill against the
    fastest engine which is not built on ggml.
    """

    title: str
    folder: Maker
    plain: Maker
    kinds: dict[str, str]  # "int8" -> "Q8_0"
    prompt: tuple[int, ...]
    bar: Pair | None
    learned: bool = False

    def gguf(self, precision: str) -> Path:
        """The file of a precision; pophood and those built on ggml read it."""
        return quantised_gguf(self.plain(), self.kinds[precision])


SPAIN = (504, 3575, 282, 7476, 314)  # "The capital of Spain is" to SmolLM2
MODELS = {
    "smollm2": Model(
        "SmolLM2-135M",
        smollm2_folder,
        smollm2_gguf,
        {"int8": "Q8_0", "int4": "Q4_1", "bf16": "BF16"},
        SPAIN,
        (1.2, 2.0),
        learned=True,
    ),
    "qwen": Model(
        "Qwen2.5-0.5B's shape",
        qwen_folder,
        qwen_gguf,
        {"int8": "Q8_0", "int4": "Q4_K_M", "bf16": "BF16"},
        tuple(range(1000, 1016)),
        (1.2, 2.0),
    ),
    "gpt2": Model(
        "GPT-2 small's shape",
        gpt2_folder,
        gpt2_gguf,
        {"int8": "Q8_0", "int4": "Q4_K_M", "bf16": "BF16"},
        tuple(range(1000, 1016)),
        None,
    ),
}
