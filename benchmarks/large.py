"""An 8B model at Q4_K_M: peak memory while it is loaded, time to load, and decoding beside the peers.

The shape is Llama 3's 8B with random but valid blocks, of the types that llama.cpp's Q4_K_M takes: Q6_K for
the output matrix and for attn_v and ffn_down of half the blocks, Q4_K for the rest. The file has 4.9 GB below
build/ and is deleted at the end. Each side is a process of its own that loads the file anew in every round,
one after the other, so that 24 GB are enough; a first round reads the file into the system's cache. Decoding
is 32 greedy tokens after a prompt of 16. llama.cpp runs with its defaults, ik_llama.cpp with -rtr 0 and 1.
Bars: the largest resident memory (VmHWM, anonymous and file pages) at most 1.1 times the file; decoding at
least as fast as the better peer's. Ceiling of decoding: read bandwidth / bytes of weights.
Run: POPHOOD_PEER_IK=.../build/bin python benchmarks/large.py [--rounds 3] [--threads 2]
[--keep] [--load-only] [--layers 32] [--no-amx]
"""

from __future__ import annotations

import argparse
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from _amx import add_no_amx
from _ik import REPACKED, ik_commit, ik_rate
from _models import KEPT
from _sides import Side
from _timing import Work, interleaved, judged, paired_ratio, report, summary
from numpy.typing import NDArray

from pophood.config import ModelConfig, Rope
from pophood.model.engine import read_bandwidth
from tests.tiny import tiny_config
from tests.tiny_gguf import gguf_entries, write_metadata, write_vocabulary

PROMPT, STEPS = 16, 32
SHAPE: dict[str, Any] = {
    "n_layer": 32,
    "n_head": 32,
    "n_kv_head": 8,
    "n_embd": 4096,
    "head_dim": 128,
    "n_inner": 14_336,
    "vocab_size": 128_256,
    "n_positions": 8192,
    "rope": Rope(500_000.0),
    "tied_output": False,
}
Bytes = NDArray[np.uint8]


def q4_k(values: int, rng: np.random.Generator) -> Bytes:
    """Q4_K blocks: two f16 scales, 12 bytes of 6-bit scales and minima, 128 of nibbles; mean about 0."""
    blocks = rng.integers(0, 256, (values // 256, 144), np.uint8)
    blocks[:, :4] = np.array([8e-5, 6e-4], np.float16).view(np.uint8)
    return blocks


def q6_k(values: int, rng: np.random.Generator) -> Bytes:
    """Q6_K blocks: 192 bytes of 6-bit weights, 16 of 8-bit scales, an f16 scale."""
    blocks = rng.integers(0, 256, (values // 256, 210), np.uint8)
    blocks[:, 208:] = np.array([1.2e-5], np.float16).view(np.uint8)
    return blocks


def kind_of(name: str, shape: tuple[int, ...], layers: int) -> str:
    """The type of a tensor in llama.cpp's Q4_K_M (llama_tensor_get_type, use_more_bits)."""
    if len(shape) == 1:
        return "F32"
    if name == "output.weight":
        return "Q6_K"
    if not name.endswith(("attn_v.weight", "ffn_down.weight")):
        return "Q4_K"
    layer, eighth = int(name.split(".")[1]), layers // 8
    more = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
    return "Q6_K" if more else "Q4_K"


def write(path: Path, config: ModelConfig) -> None:
    """Write the file, one tensor at a time."""
    import gguf

    rng = np.random.default_rng(11)
    writer = gguf.GGUFWriter(path, config.architecture)
    write_metadata(writer, config)
    write_vocabulary(writer, config)
    entries = gguf_entries(config, lambda name: np.ones(1, np.float32), False)
    kinds = [kind_of(entry.name, entry.shape, config.n_layer) for entry in entries]
    for entry, kind in zip(entries, kinds, strict=True):
        code = gguf.GGMLQuantizationType[kind]
        shape = gguf.quant_shape_to_byte_shape(entry.shape, code)
        writer.add_tensor_info(entry.name, shape, np.dtype(np.uint8), math.prod(shape), code)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    make = {"Q4_K": q4_k, "Q6_K": q6_k}
    for entry, kind in zip(entries, kinds, strict=True):
        n = math.prod(entry.shape)
        writer.write_tensor_data(np.ones(n, np.float32) if kind == "F32" else make[kind](n, rng))
    writer.close()


class Loaded:
    """A side that is loaded anew for every turn; what it says when it is ready is kept."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts
        self.said: list[dict[str, Any]] = []

    def __call__(self) -> float:
        """Load the file, decode, and end: tokens/s."""
        side = Side("_speed_worker.py", **self._facts)
        self.said.append(side.ready)
        rate = side.turn(PROMPT, STEPS)()
        side.end()
        return rate


def measure(path: Path, rounds: int, threads: int, *, alone: bool) -> None:
    """Time all sides, and report memory, load times and decoding."""
    ours = Loaded(side="pophood", path=str(path), threads=threads)
    theirs = Loaded(side="llama.cpp", path=str(path), threads=threads, flash=False)
    bandwidth: list[float] = []

    def ceiling() -> float:
        bandwidth.append(read_bandwidth(threads, rounds=5))
        return bandwidth[-1] / float(ours.said[-1]["weight_bytes"])

    works: dict[str, Work] = {"pophood": ours, "ceiling (bandwidth / weights)": ceiling}
    commit = None
    if not alone:
        works["llama.cpp"] = theirs
        commit = ik_commit(path)
    for repack in REPACKED if commit else ():
        works[f"ik -rtr {repack}"] = functools.partial(ik_rate, path, threads, repack, PROMPT, STEPS)
    figures = interleaved(works, rounds)
    size = path.stat().st_size
    peak = summary([one["peak_memory"] / size for one in ours.said])
    bars = {"8B Q4_K_M, largest resident memory while loading / file": judged(peak, 1.1, 1.0, most=True)}
    peers = [name for name in figures if name.startswith(("llama.cpp", "ik"))]
    ratios = {f"pophood / {name}": paired_ratio(figures, "pophood", name) for name in peers}
    if peers:
        better = max(peers, key=lambda name: summary(figures[name])["median"])
        bars[f"8B Q4_K_M, decode against {better}"] = judged(ratios[f"pophood / {better}"], 1.0, 1.2)
    report(
        "8B at Q4_K_M",
        "tokens/s",
        figures,
        bars=bars,
        ratios=ratios,
        threads=threads,
        isa=ours.said[0]["isa"],
        file_bytes=size,
        weight_bytes=ours.said[0]["weight_bytes"],
        peak_gb=round(max(one["peak_memory"] for one in ours.said) / 1e9, 2),
        load_seconds=summary([one["load_seconds"] for one in ours.said[1:]]),
        bandwidth_gb_per_s=round(summary(bandwidth)["median"] / 1e9, 1),
        share_of_bandwidth=paired_ratio(figures, "pophood", "ceiling (bandwidth / weights)"),
        peers={"llama-cpp-python": theirs.said[0]["version"] if theirs.said else "", "ik_llama.cpp": commit},
    )


def main() -> None:
    """Write the file, measure, and delete it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="leave the file for the next run")
    parser.add_argument("--load-only", action="store_true", help="without the peers")
    parser.add_argument("--layers", type=int, default=SHAPE["n_layer"], help="a smaller model, to try this")
    add_no_amx(parser)
    options = parser.parse_args()
    config = tiny_config("llama", **(SHAPE | {"n_layer": options.layers}))
    path = KEPT / f"llama-8b-{options.layers}-q4_k_m.gguf"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            write(part, config)
            part.rename(path)
        print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB", flush=True)
        measure(path, options.rounds, options.threads, alone=options.load_only)
    finally:
        if not options.keep:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
