"""GPT-2 small's published shape with random weights, as GGUF F32 and as a folder; kept in build/."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.tiny import gpt2_config, tiny_folder, tiny_gguf  # noqa: E402

KEPT = ROOT / "build" / "benchmarks"


def gpt2_gguf(blocks: str | None = None) -> Path:
    """GPT-2 small as GGUF in F32, or with every matrix in a type of blocks such as "Q8_0"."""
    path = KEPT / f"gpt2-{(blocks or 'f32').lower()}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_gguf(path, "gpt2", seed=3, quantised=blocks, **asdict(gpt2_config("gpt2")))
    return path


def gpt2_folder() -> Path:
    """Write the model as a Hugging Face folder."""
    path = KEPT / "gpt2-folder"
    if not (path / "model.safetensors").exists():
        tiny_folder(path, "gpt2", seed=3, **asdict(gpt2_config("gpt2")))
    return path
