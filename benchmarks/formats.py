"""Reading model files: values decoded per second of each block type, milliseconds to read a GGUF's metadata.

Ceiling of decoding: writing the float32 values, 4 bytes each, once (a copy from a source that stays in the
cache). Decoding runs on one thread in NumPy; the peer is ggml's own Python package, which uses NumPy too.
Run: python benchmarks/formats.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gguf
import numpy as np
from _timing import Work, interleaved, report, timed, versions

from pophood.formats import open_gguf
from pophood.formats.quant import BLOCKS, decode

VALUES = 1 << 22
ROUNDS = 7
TOKENS = 150_000


def decoding() -> dict[str, Work]:
    """Million values per second, each work into a buffer that exists."""
    rng = np.random.default_rng(0)
    out, piece = np.zeros(VALUES, np.float32), np.zeros(1 << 15, np.float32)
    works: dict[str, Work] = {}

    def rate(seconds: float) -> float:
        return VALUES / seconds / 1e6

    def copy() -> None:
        for start in range(0, VALUES, piece.size):
            out[start : start + piece.size] = piece

    works["ceiling: copy"] = lambda: rate(timed(copy))
    for kind, layout in BLOCKS.items():
        data = rng.integers(0, 256, VALUES // layout.elements * layout.bytes, dtype=np.uint8)
        if kind == "F16":  # random bits hold NaN, which takes a slower way
            data = rng.standard_normal(VALUES).astype(np.float16).view(np.uint8)
        works[kind] = lambda kind=kind, data=data: rate(timed(lambda: decode(kind, data, VALUES, out)))
        if kind in ("Q8_0", "Q4_1", "Q4_K", "Q6_K"):
            rows, code = data.reshape(-1, layout.bytes), gguf.GGMLQuantizationType[kind]
            works[f"gguf package, {kind}"] = lambda rows=rows, code=code: rate(
                timed(lambda: gguf.quants.dequantize(rows, code))
            )
    return works


def vocabulary(folder: Path) -> Path:
    """A GGUF of 150,000 tokens and as many merges, as long as those of real models."""
    path = folder / "vocabulary.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"Ġtok{i:x}" for i in range(TOKENS)])
    writer.add_token_merges([f"Ġt{i:x} ok" for i in range(TOKENS)])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def main() -> None:
    """Time both, interleaved."""
    with np.errstate(all="ignore"):
        figures = interleaved(decoding(), ROUNDS)
    report("formats-decode", "million values/s", figures, versions=versions("numpy", "gguf"))
    with tempfile.TemporaryDirectory() as folder:
        path = vocabulary(Path(folder))
        works: dict[str, Work] = {
            "open_gguf, 150,000 tokens + merges": lambda: 1e3 * timed(lambda: open_gguf(path).close()),
            "gguf.GGUFReader": lambda: 1e3 * timed(lambda: gguf.GGUFReader(path)),
        }
        report("formats-parse", "ms", interleaved(works, 3), versions=versions("numpy", "gguf"))


if __name__ == "__main__":
    main()
