"""Builds safetensors files byte by byte, good and bad, and small sharded models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def packed(header: Any, data: bytes = b"", *, padding: int | None = None, length: int | None = None) -> bytes:
    """Build a file from a header (JSON value or raw bytes) and data.

    `length` is a false length of the header.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8 if padding is None else padding)
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def floats(tensors: dict[str, list[float]]) -> bytes:
    """Build a good file of F32 vectors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in tensors.items():
        content = np.array(values, "<f4").tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": offsets}
        data += content
    return packed(header, data)


def sharded(folder: Path, shards: dict[str, dict[str, list[float]]]) -> Path:
    """Write shards and their index; return the path of the index."""
    weight_map: dict[str, str] = {}
    for shard, tensors in shards.items():
        (folder / shard).write_bytes(floats(tensors))
        weight_map |= dict.fromkeys(tensors, shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 12}, "weight_map": weight_map}))
    return index
