"""The models of the benchmarks, kept in build/: published shapes with random weights, SmolLM2 in any type."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pophood import hub  # noqa: E402
from tests.families.published_later import GEMMA3_270M as GEMMA3_270M  # noqa: E402
from tests.tiny import gpt2_config, tiny_folder, tiny_gguf  # noqa: E402

QWEN = {  # Qwen2.5-0.5B
    "n_layer": 24,
    "n_head": 14,
    "n_kv_head": 2,
    "n_embd": 896,
    "head_dim": 64,
    "n_inner": 4864,
    "vocab_size": 151_936,
    "n_positions": 32_768,
    "tied_output": True,
}
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


def gpt2_short_gguf() -> Path:
    """GPT-2 small in F32 with the vocabulary that native_tests decodes with."""
    path = KEPT / "gpt2-short-f32.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_gguf(path, "gpt2", seed=3, **asdict(gpt2_config("gpt2")) | {"vocab_size": 5003})
    return path


def gpt2_folder() -> Path:
    """Write the model as a Hugging Face folder."""
    path = KEPT / "gpt2-folder"
    if not (path / "model.safetensors").exists():
        tiny_folder(path, "gpt2", seed=3, **asdict(gpt2_config("gpt2")))
    return path


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in F32: the values of its Q4_1 file, as pophood's export writes them."""
    path = KEPT / "smollm2-f32.gguf"
    if not path.exists():
        from pophood.export.job import export_model
        from pophood.model.bundle import open_bundle

        path.parent.mkdir(parents=True, exist_ok=True)
        export_model(open_bundle(hub.locate("smollm2").path), path, "f32")
    return path


def qwen_gguf() -> Path:
    """Qwen2.5-0.5B's shape in F32."""
    path = KEPT / "qwen2.5-0.5b-f32.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_gguf(path, "qwen2", seed=4, **QWEN)
    return path


def gpt2_large_gguf(size: str) -> Path:
    """GPT-2's shape of a size such as "gpt2-xl" in F16, since the largest has six gigabytes in F32."""
    path = KEPT / f"{size}-f16.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tiny_gguf(path, size, seed=3, dtype="F16")
    return path


def quantised_gguf(plain: Path, kind: str, *, pure: bool = False) -> Path:
    """A GGUF file as `llama-quantize PLAIN KIND` writes it, such as "Q4_K_M", through llama.cpp's library.

    `pure` gives every matrix that type, the tokens' too.
    """
    import llama_cpp

    name = plain.stem.rpartition("-")[0]
    path = KEPT / f"{name}-{kind.lower()}{'-pure' if pure else ''}.gguf"
    if not path.exists():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}")
        options.pure = pure
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
        part = path.with_suffix(".part")
        failed = llama_cpp.llama_model_quantize(
            str(plain).encode(), str(part).encode(), ctypes.byref(options)
        )
        if failed:
            sys.exit(f"llama.cpp could not write {kind} of {plain.name}")
        part.rename(path)
    return path
