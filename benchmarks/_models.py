"""GPT-2 small's published shape with random weights, as GGUF F32 and as a folder; kept in build/."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.tiny import gpt2_config, tiny_folder, tiny_gguf  # noqa: E402

KEPT = ROOT / "build" / "benchmarks"


def gpt2_gguf(blocks: str | None = None, *, output: bool = False) -> Path:
    """GPT-2 small as GGUF in F32, or with every matrix in a type of blocks such as "Q8_0".

    `output` writes the token matrix once more as the output matrix, for ik_llama.cpp, which wants one.
    """
    path = KEPT / f"gpt2-{(blocks or 'f32').lower()}{'-output' if output else ''}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = asdict(gpt2_config("gpt2"))
        tiny_gguf(path, "gpt2", seed=3, quantised=blocks, duplicate_output=output, **shape)
    return path


def gpt2_folder() -> Path:
    """Write the model as a Hugging Face folder."""
    path = KEPT / "gpt2-folder"
    if not (path / "model.safetensors").exists():
        tiny_folder(path, "gpt2", seed=3, **asdict(gpt2_config("gpt2")))
    return path
