"""Dequantises ggml's block formats to float32; every layout is drawn where it is parsed. No encoders.

A quantised tensor is a sequence of blocks. A block holds 32 or 256 weights as small integers q, with float16
scales and, in the K types, 4- or 6-bit sub-scales. Layouts and the order of arithmetic are ggml's
(ggml-quants.c, dequantize_row_*), so the bits equal those of ggml's Python package; tests compare them.

NumPy needs some care to be fast here: a ufunc costs about 15 ns for every row that it broadcasts over, as
much as 100 contiguous values, and byte shifts are slow. So shifts and masks run over contiguous four-byte
words, pieces are moved as items of 16 or 32 bytes, scales are repeated to full length, and a chunk fits in
the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pophood.errors import BadFile, Unsupported

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Values at a time (1 MiB of output): smaller chunks cost more calls, larger ones miss the caches.
CHUNK = 1 << 18


class BlockLayout(NamedTuple):
    """The storage of a type: a block of `bytes` bytes holds `elements` values, which `decode` writes out.

    `scales` are the offsets of the float16 scales of a block. A value is finite if its scales are, since q is
    a small integer.
    """

    name: str
    elements: int
    bytes: int
    decode: Callable[[Bytes, Floats], None]
    scales: tuple[int, ...] = (0,)


def decode(type: str, data: Bytes, n: int, out: Floats | None = None) -> Floats:  # noqa: A002
    """Decode `n` stored values to float32 [n], into `out` if given; aligned F32 without `out` is a view.

    Raises Unsupported for a type outside BLOCKS, BadFile unless `data` holds exactly n values.

    >>> decode("Q8_0", np.frombuffer(b"\\x00\\x38" + bytes([2, 255] * 16), np.uint8), 32)[:2].tolist()
    [1.0, -0.5]
    """
    layout = BLOCKS.get(type)
    if layout is None:
        raise Unsupported(
            f"type {type}: pophood decodes {', '.join(BLOCKS)}: use a model in one of these types"
        )
    blocks, rest = divmod(n, layout.elements)
    if n < 0 or rest or blocks * layout.bytes != data.nbytes:
        raise BadFile(
            f"{n:,} values of {type} need blocks of {layout.elements} values in {layout.bytes} bytes; "
            f"got {data.nbytes:,} bytes: the file is damaged; fetch it again"
        )
    if type == "F32" and out is None:
        floats = data.view("<f4")
        return floats if floats.flags.aligned else floats.copy()
    values = np.empty(n, np.float32) if out is None else out
    stored = data.reshape(blocks, layout.bytes)
    target = values.reshape(blocks, layout.elements)
    step = CHUNK // layout.elements
    with np.errstate(all="ignore"):  # a hostile scale may be infinite or NaN; values are not checked here
        for start in range(0, blocks, step):
            layout.decode(stored[start : start + step], target[start : start + step])
    return values


# Pieces of the decoders --------------------------------------------------------------------------------


def _cut(blocks: Bytes, offset: int, width: int) -> Bytes:
    """Copy the `width` bytes at a byte offset of every block, as one item each: [n, width]."""
    items = np.ndarray((len(blocks),), f"V{width}", blocks, offset, (blocks.shape[1],))
    return items.copy().view(np.uint8).reshape(-1, width)


def _halves(blocks: Bytes, offset: int) -> Floats:
    """Convert the float16 at a byte offset of every block to float32: [n, 1]."""
    return _cut(blocks, offset, 2).view("<f2").astype(np.float32)


def _planes(packed: Bytes, bits: int, width: int, at: int = 0) -> Bytes:
    """Unpack unsigned integers of `bits` bits into bytes, shifted left by `at`: flat.

    Runs of `width` bytes hold 8/bits planes of `width` values: plane k is (run >> bits * k) & mask, and the
    planes of a run are consecutive in the output. Four bytes are shifted at once; the mask removes bits that
    cross from one byte to the next.
    """
    words = packed.reshape(-1).view("<u4")
    mask = np.uint32(((1 << bits) - 1 << at) * 0x01010101)
    planes = np.empty((packed.size // width, 8 // bits), f"V{width}")
    for k in range(8 // bits):
        down = bits * k - at
        moved = words >> down if down > 0 else words << -down if down < 0 else words
        planes[:, k] = (moved & mask).view(f"V{width}")
    return planes.view(np.uint8).reshape(-1)


def _bit_row(blocks: Bytes, offset: int) -> Bytes:
    """Unpack the 32 bits of the 4 bytes at `offset`, bit j as the fifth bit (16) of weight j: flat."""
    bits = np.unpackbits(_cut(blocks, offset, 4).reshape(-1), bitorder="little")
    words = bits.view("<u4")
    np.left_shift(words, 4, out=words)
    return bits


def _spread(scales: Floats, like: Floats) -> Floats:
    """Repeat every scale over its share of the output.

    Contiguous operands are faster than broadcasting here.
    """
    return np.repeat(scales.reshape(-1), like.size // scales.size).reshape(like.shape)


def _scale(out: Floats, scales: Floats, q: NDArray[Any]) -> None:
    """Compute out = scale * q with one float32 rounding."""
    out[:] = q.reshape(out.shape)
    np.multiply(_spread(scales, out), out, out=out)


# Plain types -------------------------------------------------------------------------------------------


def _f32(blocks: Bytes, out: Floats) -> None:
    out[:] = blocks.view("<f4")


def _f16(blocks: Bytes, out: Floats) -> None:
    # NumPy converts float16 in software (2.6 ns per value). Moving exponent and fraction into place and
    # multiplying by 2^112 (127 - 15 is the difference of the biases) is exact for every finite number,
    # subnormals included.
    #   int16 sign-extended:  ssss ssss  ssss ssss  seee eeff  ffff ffff
    #   << 13, masked:        s000 eeee  efff ffff  fff0 0000  0000 0000
    bits = blocks.view("<u2")
    if ((bits & 0x7C00) == 0x7C00).any():  # with an infinity or a NaN, the slow way preserves the bits
        out[:] = blocks.view("<f2")
        return
    words = out.view(np.int32)
    words[:] = blocks.view("<i2")
    np.left_shift(words, 13, out=words)
    np.bitwise_and(words, np.int32(0x8FFFE000 - (1 << 32)), out=words)
    np.multiply(out, np.float32(2.0**112), out=out)


def _bf16(blocks: Bytes, out: Floats) -> None:
    words = out.view(np.uint32)
    words[:] = blocks.view("<u2")
    np.left_shift(words, 16, out=words)


# Blocks of 32: one or two float16 numbers, then q ---------------------------------------------------------


def _q8_0(blocks: Bytes, out: Floats) -> None:
    # | d f16 | 32 x int8 q |                                              w = d * q
    out[:] = blocks[:, 2:].view(np.int8)
    np.multiply(out, _spread(_halves(blocks, 0), out), out=out)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    # | d f16 | 16 bytes: low nibbles are q 0..15, high ones q 16..31 |    w = d * (q - 8)
    q = _planes(_cut(blocks, 2, 16), 4, 16).view(np.int8)
    q -= 8
    _scale(out, _halves(blocks, 0), q)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    # | d f16 | m f16 | 16 bytes of nibbles as in Q4_0 |                   w = d * q + m
    _scale(out, _halves(blocks, 0), _planes(_cut(blocks, 4, 16), 4, 16))
    out += _spread(_halves(blocks, 2), out)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    # | d f16 | 4 bytes: bit j is the fifth bit of q j | 16 bytes of nibbles as in Q4_0 |    w = d * (q - 16)
    q = (_planes(_cut(blocks, 6, 16), 4, 16) | _bit_row(blocks, 2)).view(np.int8)
    q -= 16
    _scale(out, _halves(blocks, 0), q)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    # | d f16 | m f16 | 4 bytes of fifth bits | 16 bytes of nibbles |      w = d * q + m
    _scale(out, _halves(blocks, 0), _planes(_cut(blocks, 8, 16), 4, 16) | _bit_row(blocks, 4))
    out += _spread(_halves(blocks, 2), out)


# Blocks of 256 (K types): groups of 16 or 32 with a small sub-scale each ------------------------------------


def _q2_k(blocks: Bytes, out: Floats) -> None:
    # | 16 bytes: low nibble the scale, high nibble the minimum of a group of 16 |
    # | 64 bytes: two runs of 32 bytes, each four planes of 2 bits | d f16 | dmin f16 |
    # w = (d * scale) * q - (dmin * minimum)
    packed = blocks[:, :16]
    _scale(out, _halves(blocks, 80) * (packed & 15), _planes(_cut(blocks, 16, 64), 2, 32))
    out -= _spread(_halves(blocks, 82) * (packed >> 4), out)


def _q3_k(blocks: Bytes, out: Floats) -> None:
    # | 32 bytes: plane k of 1 bit is the third bit of q 32k..32k+31, *inverted* |
    # | 64 bytes: low two bits as in Q2_K | 12 bytes: 16 scales of 6 bits | d f16 |
    # The scales: nibbles of bytes 0..7 are the low four bits of scales 0..7 (low) and 8..15 (high);
    # bytes 8..11 hold the high two bits as four planes of four.
    # w = (d * (scale - 32)) * (q - 4),   where a third bit of 1 means "do not subtract 4"
    low = _planes(_cut(blocks, 96, 8), 4, 8)
    scales = (low | _planes(_cut(blocks, 104, 4), 2, 4, at=4)).view(np.int8) - np.int8(32)
    third = _planes(_cut(blocks, 0, 32), 1, 32, at=2)
    q = (_planes(_cut(blocks, 32, 64), 2, 32) | third).view(np.int8)
    q -= 4
    _scale(out, _halves(blocks, 108) * scales.reshape(-1, 16).astype(np.float32), q)


def _six_bit_pairs(packed: Bytes) -> tuple[Floats, Floats]:
    """Unpack the 8 scales and 8 minima of 6 bits in the 12 bytes of Q4_K and Q5_K: [n, 8] each.

    Bytes 0..3: scales 0..3 in the low six bits; 4..7: minima 0..3 likewise; 8..11: low four bits of scales
    4..7 (low nibble) and minima 4..7 (high nibble), whose high two bits are the top bits of bytes 0..3 and
    4..7.
    """
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 2) & 48)], axis=1)
    minima = np.concatenate([second & 63, (third >> 4) | ((second >> 2) & 48)], axis=1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _q4_k(blocks: Bytes, out: Floats) -> None:
    # | d f16 | dmin f16 | 12 bytes: 8 scales and 8 minima of 6 bits, one of each for a group of 32 |
    # | 128 bytes: four runs of 32 bytes, each a plane of low nibbles, then one of high nibbles |
    # w = (d * scale) * q - (dmin * minimum)
    scales, minima = _six_bit_pairs(_cut(blocks, 4, 12))
    _scale(out, _halves(blocks, 0) * scales, _planes(_cut(blocks, 16, 128), 4, 32))
    out -= _spread(_halves(blocks, 2) * minima, out)


def _q5_k(blocks: Bytes, out: Floats) -> None:
    # | d f16 | dmin f16 | 12 bytes as in Q4_K | 32 bytes: plane k of 1 bit is the fifth bit of group k |
    # | 128 bytes of nibbles as in Q4_K |
    # w = (d * scale) * q - (dmin * minimum)
    scales, minima = _six_bit_pairs(_cut(blocks, 4, 12))
    q = _planes(_cut(blocks, 48, 128), 4, 32) | _planes(_cut(blocks, 16, 32), 1, 32, at=4)
    _scale(out, _halves(blocks, 0) * scales, q)
    out -= _spread(_halves(blocks, 2) * minima, out)


def _q6_k(blocks: Bytes, out: Floats) -> None:
    # | 128 bytes: two runs of 64 bytes, low nibbles then high nibbles | 64 bytes: two runs of 32 bytes, four
    # planes of the high two bits | 16 x int8 scale, one for a group of 16 | d f16 |
    # w = (d * scale) * (q - 32)
    high = _planes(_cut(blocks, 128, 64), 2, 32, at=4)
    q = (_planes(_cut(blocks, 0, 128), 4, 64) | high).view(np.int8)
    q -= 32
    _scale(out, _halves(blocks, 208) * _cut(blocks, 192, 16).view(np.int8).astype(np.float32), q)


# IQ4 types: a nibble is an index into 16 steps, which are denser near zero ----------------------------------

# kvalues_iq4nl in ggml
_STEPS = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)


def _iq4_nl(blocks: Bytes, out: Floats) -> None:
    # | d f16 | 16 bytes of nibbles as in Q4_0 |                            w = d * step[q]
    _scale(out, _halves(blocks, 0), _STEPS[_planes(_cut(blocks, 2, 16), 4, 16)])


def _iq4_xs(blocks: Bytes, out: Floats) -> None:
    # | d f16 | u16: bits 2g, 2g+1 are the high two bits of scale g | 4 bytes: nibble g is its low four bits |
    # | 8 groups of 32: 16 bytes of nibbles as in Q4_0 |
    # w = (d * (scale - 32)) * step[q]
    pairs = _cut(blocks, 4, 4)
    low = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1, 8)
    high = _cut(blocks, 2, 2).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3
    scales = (low | (high << 4).astype(np.uint8)).view(np.int8) - np.int8(32)
    q = _planes(_cut(blocks, 8, 128), 4, 16)
    _scale(out, _halves(blocks, 0) * scales.astype(np.float32), _STEPS[q])


BLOCKS: dict[str, BlockLayout] = {
    layout.name: layout
    for layout in (
        BlockLayout("F32", 1, 4, _f32),
        BlockLayout("F16", 1, 2, _f16),
        BlockLayout("BF16", 1, 2, _bf16),
        BlockLayout("Q8_0", 32, 34, _q8_0),
        BlockLayout("Q4_0", 32, 18, _q4_0),
        BlockLayout("Q4_1", 32, 20, _q4_1, scales=(0, 2)),
        BlockLayout("Q5_0", 32, 22, _q5_0),
        BlockLayout("Q5_1", 32, 24, _q5_1, scales=(0, 2)),
        BlockLayout("Q2_K", 256, 84, _q2_k, scales=(80, 82)),
        BlockLayout("Q3_K", 256, 110, _q3_k, scales=(108,)),
        BlockLayout("Q4_K", 256, 144, _q4_k, scales=(0, 2)),
        BlockLayout("Q5_K", 256, 176, _q5_k, scales=(0, 2)),
        BlockLayout("Q6_K", 256, 210, _q6_k, scales=(208,)),
        BlockLayout("IQ4_NL", 32, 18, _iq4_nl),
        BlockLayout("IQ4_XS", 256, 136, _iq4_xs),
    )
}


def first_nonfinite(type: str, data: Bytes) -> int | None:  # noqa: A002
    """Return the flat index of the first NaN or infinite value (of its block, if quantised), or None.

    >>> first_nonfinite("F32", np.array([1, np.inf], "<f4").view(np.uint8))
    1
    """
    layout = BLOCKS[type]
    blocks = data.reshape(-1, layout.bytes)
    step = CHUNK // layout.elements
    with np.errstate(all="ignore"):
        for start in range(0, len(blocks), step):
            bad = _bad_blocks(type, blocks[start : start + step])
            if bad is not None:
                return int((start + bad) * layout.elements)
    return None


def _bad_blocks(type: str, blocks: Bytes) -> int | None:  # noqa: A002
    """Return the index of the first block of a chunk with a NaN or infinite value, or None."""
    if type == "F32":
        words = blocks.view("<f4").reshape(-1)
        if np.isfinite([words.max(), words.min()]).all():  # NaN propagates; faster than testing each value
            return None
        bad = ~np.isfinite(words)
    elif type == "BF16":
        bad = (blocks.view("<u2").reshape(-1) & 0x7F80) == 0x7F80
    else:
        bad = np.zeros(len(blocks), bool)
        for offset in BLOCKS[type].scales:
            bad |= (_cut(blocks, offset, 2).view("<u2").reshape(-1) & 0x7C00) == 0x7C00
    return int(bad.argmax()) if bad.any() else None
