"""Quality of 8- and 4-bit products: how far predictions move from float32's, ours and llama.cpp's.

A GPT-2 of 6 x 384 is trained on tinyshakespeare by `pophood tune --from-scratch`, kept in build/. The other
model is the same function with outliers: in front of every attention and MLP three channels of the norm are
64 times as large, and the columns that read them 64 times as small. On held-out text: the mean over tokens
of KL(f32 || fewer bits) in nats, pophood's q8 and q4 against its f32, and llama.cpp's Q8_0 and Q4_0 (tokens
and output in Q8_0) of the same weights against its F32. Bars: q8 0.002 nats without outliers; 1.1 times
llama.cpp's with and without; q4 at most llama.cpp's, at no more bits per weight. Then SmolLM2 in Q4_1,
computed as stored: its perplexity on WikiText-2 within 0.5 % of f32's.
Run: python benchmarks/quality.py [--text FILE] [--no-amx]; by default the 20,000 characters of WikiText-2 in
tests/data
"""

from __future__ import annotations

import argparse
import ctypes
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _amx import add_no_amx
from _models import KEPT, ROOT
from _sides import TEXT
from _timing import judged, report, versions
from numpy.typing import NDArray

import pophood
from pophood.bench.quality import divergence, log_softmax
from pophood.config import tensor_shapes
from pophood.formats.quant import BLOCKS
from pophood.model.bundle import open_weights
from pophood.model.memory import computed_type
from pophood.model.score import logit_rows

FOLDER = KEPT / "quality"
TRAINED_ON = 100_000  # characters; the rest of the text is held out
STEPS = 400
WINDOW = 256  # the positions of the model
OUTLIERS = (5, 130, 300)  # channels
FACTOR = np.float32(64)  # a power of two, so that float32 computes the same function
WIKITEXT = ROOT / "tests" / "data" / "wikitext2" / "valid-20000.txt"
Floats = NDArray[np.float32]


def pophood_command(*words: str) -> None:
    """Run a command of pophood."""
    subprocess.run([sys.executable, "-m", "pophood", *words], check=True)


def trained_folder() -> Path:
    """The trained model as a folder."""
    path = FOLDER / "model"
    if not (path / "model.safetensors").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        text = FOLDER / "train.txt"
        text.write_text(TEXT.read_text(encoding="utf-8")[:TRAINED_ON], encoding="utf-8")
        size = ["--from-scratch", "gpt2-mini", "--steps", str(STEPS)]
        pophood_command("tune", str(text), *size, "--overwrite", "-o", str(path))
    return path


def with_outliers(folder: Path) -> Path:
    """The model with outliers, as the same function; GPT-2's folders store matrices as [in, out]."""
    from safetensors.numpy import load_file, save_file

    path = FOLDER / "outliers"
    if not (path / "model.safetensors").exists():
        shutil.copytree(folder, path, dirs_exist_ok=True)
        tensors = load_file(folder / "model.safetensors")
        channels = list(OUTLIERS)
        for name, values in tensors.items():
            if ".ln_1." in name or ".ln_2." in name:
                values[channels] *= FACTOR
            elif name.endswith(("attn.c_attn.weight", "mlp.c_fc.weight")):
                values[channels] /= FACTOR
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def as_gguf(folder: Path, kind: str) -> tuple[Path, Path]:
    """The model as GGUF in F32, and as llama.cpp quantises it: in Q8_0, or Q4_0 with the tokens in Q8_0."""
    import llama_cpp

    plain, blocks = (FOLDER / f"{folder.name}-{name}.gguf" for name in ("f32", kind.lower()))
    if not plain.exists():
        pophood_command("export", str(folder), "--to", str(plain), "--type", "f32")
    if not blocks.exists():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
        options.token_embedding_type = options.output_tensor_type = 8  # GGML_TYPE_Q8_0
        failed = llama_cpp.llama_model_quantize(
            str(plain).encode(), str(blocks).encode(), ctypes.byref(options)
        )
        assert not failed, blocks
    return plain, blocks


def windows(path: Path) -> list[list[int]]:
    """The held-out text as rows of ids."""
    ids = pophood.load(path).tokenize(TEXT.read_text(encoding="utf-8")[TRAINED_ON:])
    return [ids[i : i + WINDOW] for i in range(0, len(ids) - WINDOW + 1, WINDOW)]


def ours(path: Path, precision: str, rows: list[list[int]]) -> Iterator[Floats]:
    """Logits of each window, [WINDOW - 1, V]."""
    engine = pophood.load(path, precision=precision).engine
    for ids in rows:
        yield np.concatenate([logits for _, logits in logit_rows(engine, ids)])


def theirs(path: Path, rows: list[list[int]]) -> Iterator[Floats]:
    """llama.cpp's logits of each window, [WINDOW - 1, V]."""
    from llama_cpp import Llama

    model: Any = Llama(str(path), n_ctx=WINDOW, n_batch=WINDOW, logits_all=True, verbose=False)
    for ids in rows:
        model.reset()
        model.eval(ids[:-1])
        yield np.array(model.scores[: len(ids) - 1], np.float32)
    model.close()


def divergences(exact: Iterator[Floats], other: Iterator[Floats]) -> NDArray[np.float64]:
    """KL(exact || other) of every token in nats."""
    pairs = zip(exact, other, strict=True)
    return np.concatenate([divergence(log_softmax(a), log_softmax(b)) for a, b in pairs])


def single(value: float) -> dict[str, float]:
    """A figure without a spread, since the numbers do not change from run to run."""
    return {"median": float(value), "min": float(value), "max": float(value)}


def compare(name: str, folder: Path, bars: dict[str, Any]) -> dict[str, list[float]]:
    """Measure one model on both sides."""
    figures: dict[str, list[float]] = {}
    for kind, precision in (("Q8_0", "q8"), ("Q4_0", "q4")):
        plain, blocks = as_gguf(folder, kind)
        rows = windows(plain)
        q = divergences(ours(plain, "f32", rows), ours(plain, precision, rows))
        peer = divergences(theirs(plain, rows), theirs(blocks, rows))
        cross = divergences(theirs(plain, rows), ours(plain, "f32", rows))
        assert cross.mean() < 1e-4, "the two programs compute different models"
        if name == "as trained" and kind == "Q8_0":
            bars[f"q8, {name}: KL in nats"] = judged(single(q.mean()), 0.002, 0.002, most=True)
        bar = 1.1 if kind == "Q8_0" else 1.0
        ratio = single(q.mean() / peer.mean())
        bars[f"{precision}, {name}: KL against llama.cpp's {kind}"] = judged(ratio, bar, 1.0, most=True)
        bits = bits_per_weight(plain, precision), bits_per_weight(blocks, "auto")
        assert bits[0] <= bits[1], bits
        figures |= {
            f"{name}: pophood {precision} against f32": [float(q.mean())],
            f"{name}: llama.cpp {kind} against F32": [float(peer.mean())],
            f"{name}: pophood f32 against llama.cpp F32": [float(cross.mean())],
            f"{name}: pophood {precision}, 99th percentile": [float(np.percentile(q, 99))],
            f"{name}: llama.cpp {kind}, 99th percentile": [float(np.percentile(peer, 99))],
            f"{name}: bits per weight, pophood {precision}": [bits[0]],
            f"{name}: bits per weight, llama.cpp {kind}": [bits[1]],
        }
    return figures


def bits_per_weight(path: Path, precision: str) -> float:
    """The bits of the matrices of a model as they are computed, without padding."""
    model = open_weights(path)
    bits = weights = 0
    for name, shape in tensor_shapes(model.config).items():
        if len(shape) == 2 and name != "embed.position":
            layout = BLOCKS[computed_type(name, shape, model.weights.stored_type(name), precision)]
            bits += 8 * layout.bytes * math.prod(shape) // layout.elements
            weights += math.prod(shape)
    return bits / weights


def perplexity(text: str, bars: dict[str, Any]) -> dict[str, list[float]]:
    """SmolLM2's perplexity as stored and in f32, in windows of 1,024 tokens."""
    stored, exact = (pophood.load("smollm2", precision=p).score(text, window=1024) for p in ("auto", "f32"))
    more = stored.perplexity / exact.perplexity - 1
    bars["SmolLM2 on WikiText-2: perplexity over f32's, in per cent"] = judged(
        single(100 * more), 0.5, 0.1, most=True
    )
    return {
        f"SmolLM2 as stored: perplexity of {stored.scored:,} tokens": [stored.perplexity],
        "SmolLM2 f32: perplexity": [exact.perplexity],
    }


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, default=WIKITEXT)
    add_no_amx(parser)
    options = parser.parse_args()
    bars: dict[str, Any] = {}
    folder = trained_folder()
    figures = compare("as trained", folder, bars) | compare("with outliers", with_outliers(folder), bars)
    figures |= perplexity(options.text.read_text(encoding="utf-8"), bars)
    print(*(f"{what}: {values[0]:.3g}" for what, values in figures.items()), sep="\n")
    report(
        "quality of 8 and 4 bits", "nats per token", figures, bars=bars, peers=versions("llama-cpp-python")
    )


if __name__ == "__main__":
    main()
