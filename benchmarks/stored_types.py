"""Every stored type that llama-quantize writes, beside llama.cpp and ik_llama.cpp: tokens/s and their ratios.

Shapes: SmolLM2-135M (its own weights), and with random weights Qwen2.5-0.5B, GPT-2 small, medium and XL.
llama.cpp's library makes each file of F32 (GPT-2 medium and XL: F16), kept in build/; rows whose length is
not a multiple of 256 get Q4_0, Q5_0, Q5_1, Q8_0 or IQ4_NL blocks there instead of K blocks. Decoding is 128
greedy tokens after a prompt of 16; prefill is 512 tokens. `_beside.py` says how the sides run.
Left out are the types that need an importance matrix (IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ2_M, IQ3_XXS,
Q2_K_S) and those of other blocks that pophood does not read (IQ3_S, IQ3_XS, IQ3_M, TQ1_0, TQ2_0, MXFP4,
NVFP4, Q1_0, Q2_0). The _S and _L mixtures hold the same blocks as the _M ones.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/stored_types.py [--shapes smollm2 qwen2.5-0.5b]
[--types Q4_K_M Q6_K] [--works decode prefill] [--rounds 5] [--threads 2] [--no-amx]; without --shapes
and --types, the combinations that have a bar. --list says what is in each file instead.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from pathlib import Path
from typing import Any

from _amx import add_no_amx
from _beside import BETTER, WORKS, Comparison, Pair, compare
from _models import gpt2_gguf, gpt2_large_gguf, quantised_gguf, qwen_gguf, smollm2_gguf
from _timing import verdict

SHAPES = {
    "smollm2": smollm2_gguf,
    "qwen2.5-0.5b": qwen_gguf,
    "gpt2": gpt2_gguf,
    "gpt2-medium": functools.partial(gpt2_large_gguf, "gpt2-medium"),
    "gpt2-xl": functools.partial(gpt2_large_gguf, "gpt2-xl"),
}
TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"),
    *("IQ4_NL", "IQ4_XS", "BF16", "F16"),
)
Bars = tuple[str, Pair | None, Pair | None]  # the peer; bar and aim of decoding, of prefill
STORED: Bars = (BETTER, (1.0, 1.3), (1.2, 2.0))
LARGE: Bars = ("llama.cpp", (1.2, 1.4), None)
BARS: dict[tuple[str, str], Bars] = {
    ("qwen2.5-0.5b", "Q4_K_M"): ("ik", (1.1, 1.4), (1.5, 2.5)),
    ("gpt2", "Q4_K_M"): ("llama.cpp", (1.3, 1.8), (2.5, 4.0)),
    ("gpt2-medium", "Q8_0"): LARGE,
    ("gpt2-xl", "Q8_0"): LARGE,
} | {("smollm2", kind): STORED for kind in TYPES}
NO_BARS: Bars = (BETTER, None, None)


def file_of(shape: str, kind: str) -> Path:
    """The file of a shape in a type, made at the first use."""
    return quantised_gguf(SHAPES[shape](), kind)


def comparison(shape: str, kind: str, works: tuple[str, ...]) -> Comparison:
    """A row of the benchmark."""
    peer, decode, prefill = BARS.get((shape, kind), NO_BARS)
    path = functools.partial(file_of, shape, kind)
    return Comparison(path, "auto", path, peer, decode, prefill, path, works)


def contents(path: Path) -> str:
    """The types of blocks in a file, with the number of tensors of each."""
    import gguf

    kinds = Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors)
    return ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())


def chosen(shapes: list[str] | None, types: list[str] | None) -> list[tuple[str, str]]:
    """Combinations to time: those that have a bar, or all of the named shapes and types."""
    if shapes is None and types is None:
        return list(BARS)
    if types is None:
        return [(shape, kind) for shape, kind in BARS if shape in (shapes or ())]
    return [(shape, kind) for shape in shapes or ["smollm2"] for kind in types]


def main() -> None:
    """Compare the files that are asked for, and print all ratios once more at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES))
    parser.add_argument("--types", nargs="+", choices=TYPES, metavar="TYPE")
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=["decode", "prefill"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--list", action="store_true")
    add_no_amx(parser)
    options = parser.parse_args()
    pairs = chosen(options.shapes, options.types)
    for shape, kind in pairs:  # before anything is timed
        path = file_of(shape, kind)
        if options.list:
            print(f"{path.name}: {path.stat().st_size / 1e6:,.1f} MB, {contents(path)}", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for shape, kind in [] if options.list else pairs:
        name, row = f"{shape} {kind}", comparison(shape, kind, tuple(options.works))
        ratios, bars = compare(f"{name}, as stored", name, row, options.rounds, options.threads)
        rows |= {f"{name}, {what}": ratio for what, ratio in ratios.items()} | bars
    for what, ratio in rows.items():
        print(f"{what}: {verdict(ratio)}")


if __name__ == "__main__":
    main()
