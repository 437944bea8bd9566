"""Quantises float32 to bfloat16, float16 and GGUF's Q8_0, Q4_0 and Q4_1 (drawn in `formats/quant.py`).

The arithmetic is that of ggml's reference (ggml-quants.c, quantize_row_*_ref) in float32, so the bits equal
those of its Python package; tests compare them. The scale is stored as float16, while the integers are
computed with the float32 scale.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pophood.adapters.adapter import Floats
from pophood.errors import Unsupported
from pophood.formats.quant import BLOCKS

Bytes = NDArray[np.uint8]
CHUNK = 1 << 20  # values at a time


def encode(kind: str, values: Floats, name: str) -> Bytes:
    """Encode float32 values as "F32", "F16", "BF16", "Q8_0", "Q4_0" or "Q4_1"; return the bytes, flat.

    Raises Unsupported, naming the tensor, for values or scales beyond the range of their type.

    >>> encode("Q8_0", np.full(32, 1.0, np.float32), "w")[:3].tolist()
    [8, 32, 127]
    """
    if kind == "F32":
        return np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)
    layout = BLOCKS[kind]
    flat = np.ascontiguousarray(values, np.float32).reshape(-1, layout.elements)
    out = np.empty((len(flat), layout.bytes), np.uint8)
    step = CHUNK // layout.elements
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(flat), step):
            sound = _ENCODERS[kind](flat[start : start + step], out[start : start + step])
            if not sound:
                most = "3.39e38" if kind == "BF16" else "65,504"
                raise Unsupported(
                    f"tensor {name} holds values up to {float(np.abs(flat).max()):g}; {kind.lower()} stores"
                    f" finite numbers up to {most}: choose --type f32"
                )
    return out.reshape(-1)


def to_bfloat16(values: Floats) -> NDArray[np.uint16]:
    """Return the upper 16 bits of float32 values, rounded to nearest, ties to even; a NaN stays a NaN.

    >>> to_bfloat16(np.array([1.0, 1.00390625, 1.01171875], np.float32)).tolist()
    [16256, 16256, 16258]
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    upper = bits >> np.uint32(16)
    nearest = ((bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), (upper | np.uint32(64)).astype(np.uint16), nearest)


def widened(bits: NDArray[np.uint16]) -> Floats:
    """Convert bfloat16 bits to float32."""
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def _bf16(values: Floats, out: Bytes) -> bool:
    bits = to_bfloat16(values)
    out[:] = bits.astype("<u2").view(np.uint8)
    return bool(np.isfinite(widened(bits)).all())


def _halves(values: Floats, out: Bytes) -> bool:
    """Store values as float16, one in a row of bytes; return whether all are finite."""
    half = values.astype("<f2")
    out[:] = half.reshape(-1, 1).view(np.uint8)
    return bool(np.isfinite(half).all())


def _inverse(scale: Floats) -> Floats:
    """Return 1 / scale in float32, and 0 for 0: [n, 1]."""
    with np.errstate(divide="ignore"):
        return np.where(scale == 0, np.float32(0), np.float32(1) / scale)[:, None]


def _q8_0(values: Floats, out: Bytes) -> bool:
    # d = max |w| / 127;  q = round(w / d), halves away from zero as roundf does
    scale = np.abs(values).max(axis=1) / np.float32(127)
    scaled = values * _inverse(scale)
    size = np.abs(scaled)
    whole = np.floor(size)
    whole += size - whole >= np.float32(0.5)
    out[:, 2:] = np.copysign(whole, scaled).astype(np.int8).view(np.uint8)
    return _halves(scale, out[:, :2])


def _q4_0(values: Floats, out: Bytes) -> bool:
    # d = (the value of largest magnitude, with its sign) / -8;  q = floor(w / d + 8.5), at most 15
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=1)[:, None], axis=1)[:, 0]
    scale = largest / np.float32(-8)
    _nibbles(values * _inverse(scale) + np.float32(8.5), out[:, 2:])
    return _halves(scale, out[:, :2])


def _q4_1(values: Floats, out: Bytes) -> bool:
    # m = min w, d = (max w - m) / 15;  q = floor((w - m) / d + 0.5), at most 15
    least = values.min(axis=1)
    scale = (values.max(axis=1) - least) / np.float32(15)
    _nibbles((values - least[:, None]) * _inverse(scale) + np.float32(0.5), out[:, 4:])
    return _halves(scale, out[:, :2]) and _halves(least, out[:, 2:4])


def _nibbles(raised: Floats, out: Bytes) -> None:
    """Truncate numbers from 0 to 15.99 to 4 bits: the first half of a block is in the low nibbles."""
    q = np.minimum(raised.astype(np.uint8), 15)
    out[:] = q[:, :16] | (q[:, 16:] << 4)


_ENCODERS: dict[str, Callable[[Floats, Bytes], bool]] = {
    "F16": _halves,
    "BF16": _bf16,
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
}
