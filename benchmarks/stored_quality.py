"""Perplexity of SmolLM2 at every stored type that llama-quantize writes: ours, llama.cpp's, and f32's.

All read the same windows of a text: pophood with blocks as it computes them ("auto"), the same file at f32,
and llama.cpp. KL divergence and flipped tokens are those of pophood against the F32 file that the others were
made of, so they hold what the type costs as well as what the arithmetic does. The bar: the perplexity is
within 1 % of llama.cpp's.
Run: python benchmarks/stored_quality.py [--text FILE] [--tokens 16384] [--window 512] [--types Q4_K_M Q6_K]
[--no-amx]
By default the text is the 20,000 characters of WikiText-2's validation text in tests/data.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _amx import add_no_amx
from _models import ROOT, quantised_gguf, smollm2_gguf
from _timing import judged, report, versions
from stored_types import TYPES

import pophood
from pophood.bench.quality import Comparison, Quality, log_softmax

WIKITEXT = ROOT / "tests" / "data" / "wikitext2" / "valid-20000.txt"


def compared(path: Path, other: pophood.LM, ids: list[int], window: int) -> Quality:
    """Our figures of a file with blocks as they are computed, beside the F32 file."""
    comparison = Comparison(pophood.load(path), other, ids, window)
    for _ in comparison.run():
        pass
    return comparison.quality()


def windows(ids: list[int], length: int) -> Iterator[list[int]]:
    """Pieces of the text as `Comparison` reads them."""
    for start in range(0, len(ids) - 1, length):
        yield ids[start : start + length]


def theirs(path: Path, ids: list[int], window: int) -> float:
    """llama.cpp's perplexity."""
    from llama_cpp import Llama

    model: Any = Llama(str(path), n_ctx=window, n_batch=window, logits_all=True, verbose=False)
    losses: list[float] = []
    for part in windows(ids, window):
        model.reset()
        model.eval(part[:-1])
        rows = log_softmax(np.array(model.scores[: len(part) - 1], np.float32))
        losses += (-rows[np.arange(len(part) - 1), part[1:]]).tolist()
    model.close()
    return float(np.exp(np.mean(losses)))


def single(value: float) -> dict[str, float]:
    """A figure without a spread, since the numbers do not change from run to run."""
    return {"median": value, "min": value, "max": value}


def measure(ids: list[int], types: Sequence[str], window: int) -> None:
    """Print a row for each type as it is measured, and report all."""
    plain = smollm2_gguf()
    exact = pophood.load(plain, precision="f32")
    figures: dict[str, list[float]] = {}
    bars: dict[str, Any] = {}
    print(
        "| type | MB | perplexity | the same file at f32 | llama.cpp | KL to F32 | flipped |\n"
        + "|---" * 7
        + "|"
    )
    figures["F32: perplexity"] = [exact.score(ids, window=window).perplexity]
    peer = theirs(plain, ids, window)
    print(
        f"| F32 | {size(plain)} | {figures['F32: perplexity'][0]:.3f} | - | {peer:.3f} | 0 | 0 |", flush=True
    )
    for kind in types:
        path = quantised_gguf(plain, kind)
        ours = compared(path, exact, ids, window)
        at_f32 = pophood.load(path, precision="f32").score(ids, window=window).perplexity
        peer = theirs(path, ids, window)
        mine = ours.this.perplexity
        figures[f"{kind}: perplexity"] = [mine]
        figures[f"{kind}: perplexity at f32"] = [at_f32]
        figures[f"{kind}: llama.cpp's perplexity"] = [peer]
        figures[f"{kind}: KL to the F32 file"] = [ours.kl_mean]
        ratio = single(100 * (mine / peer - 1))
        bars[f"SmolLM2 {kind}: perplexity over llama.cpp's, in per cent"] = judged(ratio, 1.0, 0.1, most=True)
        print(
            f"| {kind} | {size(path)} | {mine:.3f} | {at_f32:.3f} | {peer:.3f} | "
            f"{ours.kl_mean:.4f} | {100 * ours.flipped:.1f} % |",
            flush=True,
        )
    report(
        "quality of stored types",
        f"perplexity, {len(ids):,} tokens in windows of {window}",
        figures,
        bars=bars,
        peers=versions("llama-cpp-python"),
    )


def size(path: Path) -> str:
    """Megabytes of a file."""
    return f"{path.stat().st_size / 1e6:.0f}"


def main() -> None:
    """Measure the types that are asked for, by default all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path, default=WIKITEXT)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--types", nargs="+", choices=TYPES, metavar="TYPE", default=TYPES)
    add_no_amx(parser)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    ids = pophood.load(smollm2_gguf()).tokenize(text)[: options.tokens]
    measure(ids, options.types, options.window)


if __name__ == "__main__":
    main()
