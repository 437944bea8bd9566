"""Every block format decodes to the bits of ggml's Python package, whatever its 16-bit scales are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pophood
from pophood.errors import BadFile, Unsupported
from pophood.formats import open_gguf, quant
from pophood.formats.quant import BLOCKS, decode, first_nonfinite
from pophood.formats.tensors import Tensor
from tests.llama import open_llama
from tests.tiny import tiny_gguf

# float16: zeros, extreme subnormals, one, largest, infinities, NaNs with payload, quiet and signalling
HALVES = (
    0x0000,
    0x8000,
    0x0001,
    0x83FF,
    0x3C00,
    0x7BFF,
    0xFBFF,
    0x7C00,
    0xFC00,
    0x7E00,
    0xFE01,
    0x7C01,
    0xFDFF,
)
SCALES = {"Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q2_K": (80, 82)} | {
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}


def reference(kind: str, data: np.ndarray) -> np.ndarray:
    gguf = pytest.importorskip("gguf", reason="needs Python package: gguf")
    with np.errstate(all="ignore"):
        rows = data.reshape(-1, BLOCKS[kind].bytes)
        return np.asarray(gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])).reshape(-1)


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.dtype == theirs.dtype == np.float32 and np.array_equal(
        ours.view(np.uint32), theirs.view(np.uint32)
    )


def random_blocks(kind: str, blocks: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, blocks * BLOCKS[kind].bytes, dtype=np.uint8)


@pytest.mark.parametrize("kind", BLOCKS)
def test_random_bytes_decode_to_the_same_bits(kind: str) -> None:
    # two chunks and a bit, so that the seams are covered; random scales hold NaN and infinity too
    blocks = 2 * quant.CHUNK // BLOCKS[kind].elements + 3
    data = random_blocks(kind, blocks)
    assert same_bits(decode(kind, data, blocks * BLOCKS[kind].elements), reference(kind, data))


@pytest.mark.parametrize("kind", SCALES)
def test_extreme_scales_decode_to_the_same_bits(kind: str) -> None:
    layout = BLOCKS[kind]
    pairs = [(a, b) for a in HALVES for b in HALVES]
    for fill in (0x00, 0xFF, 0x0F, 0xF0, 0x80, 0x7F):
        stored = np.full((len(pairs), layout.bytes), fill, np.uint8)
        for place, offset in enumerate(SCALES[kind]):
            halves = np.array([pair[place] for pair in pairs], "<u2")
            stored[:, offset : offset + 2] = halves.view(np.uint8).reshape(-1, 2)
        data = stored.reshape(-1)
        assert same_bits(decode(kind, data, len(pairs) * layout.elements), reference(kind, data)), hex(fill)


def test_every_float16_and_bfloat16_is_widened_exactly() -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    finite = bits[(bits & 0x7C00) != 0x7C00]
    assert same_bits(decode("F16", finite.view(np.uint8), finite.size), finite.view("<f2").astype(np.float32))
    assert same_bits(decode("F16", bits.view(np.uint8), bits.size), reference("F16", bits.view(np.uint8)))
    assert same_bits(decode("BF16", bits.view(np.uint8), bits.size), reference("BF16", bits.view(np.uint8)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(sorted(BLOCKS)), blocks=st.integers(0, 5), shift=st.integers(0, 3), data=st.data()
)
def test_any_bytes_at_any_address(kind: str, blocks: int, shift: int, data: st.DataObject) -> None:
    size = blocks * BLOCKS[kind].bytes
    content = data.draw(st.binary(min_size=size, max_size=size))
    stored = np.frombuffer(bytes(shift) + content, np.uint8)[shift:]
    expected = reference(kind, np.frombuffer(content, np.uint8).copy()) if blocks else np.empty(0, np.float32)
    assert same_bits(decode(kind, stored, blocks * BLOCKS[kind].elements), expected)


def test_out_is_filled_and_returned() -> None:
    data = random_blocks("Q4_1", 10)
    out = np.zeros(320, np.float32)
    assert decode("Q4_1", data, 320, out) is out
    assert same_bits(out, reference("Q4_1", data))
    floats = np.arange(4, dtype="<f4")
    assert decode("F32", floats.view(np.uint8), 4, out[:4]).tolist() == [0, 1, 2, 3]


def test_decode_by_hand() -> None:
    half = np.float16(0.5).tobytes()
    q4 = np.frombuffer(half + bytes([0x81]) + bytes([0x88] * 15), np.uint8)
    values = decode("Q4_0", q4, 32)
    assert values[0] == 0.5 * (1 - 8) and values[16] == 0 and not values[1:16].any()
    q8 = np.frombuffer(half + bytes([1, 255] + [0] * 30), np.uint8)
    assert decode("Q8_0", q8, 32)[:3].tolist() == [0.5, -0.5, 0]


def test_decode_iq4_by_hand() -> None:
    half = np.float16(0.5).tobytes()
    nl = decode("IQ4_NL", np.frombuffer(half + bytes([0xF0]) + bytes([0x78] * 15), np.uint8), 32)
    assert nl[0] == 0.5 * -127 and nl[16] == 0.5 * 113
    assert (nl[1:16] == 0.5).all() and (nl[17:] == -5).all()
    # group 0 has the scale 0b11_0101 - 32 = 21, group 1 the scale 0b01_0010 - 32 = -14, all others -32
    xs = half + (0b0111).to_bytes(2, "little") + bytes([0x25, 0, 0, 0]) + bytes([0x88] * 128)
    values = decode("IQ4_XS", np.frombuffer(xs, np.uint8), 256)
    assert (values[:32] == 10.5).all() and (values[32:64] == -7).all() and (values[64:] == -16).all()


@pytest.mark.parametrize("file_type", ["IQ4_NL", "IQ4_XS", "Q4_K_M"])
def test_llama_cpp_computes_the_same_from_its_own_iq4_blocks(file_type: str, tmp_path: Path) -> None:
    """Files quantised by llama.cpp, with rows that are not a multiple of 256, and matrices of other types."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="needs Python package: llama_cpp")
    whole = tiny_gguf(tmp_path / "f32.gguf", "llama", vocab_size=400, n_embd=256, n_inner=160, n_head=8)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{file_type}")
    if file_type == "Q4_K_M":
        options.token_embedding_type = 20  # GGML_TYPE_IQ4_NL
    path = tmp_path / "q.gguf"
    assert llama_cpp.llama_model_quantize(str(whole).encode(), str(path).encode(), options) == 0
    with open_gguf(path) as file:
        types = {tensor.type for tensor in file.tensors.values()}
    assert types >= {"IQ4_NL", file_type if file_type.startswith("IQ") else "Q4_K"}
    ids = [3, 20, 100, 7, 55]
    model = open_llama(path, logits_all=True)
    model.eval(ids)
    theirs = np.array(model.scores[: len(ids)])
    model.close()
    ours = pophood.load(path, precision="f32").logits(ids)
    assert np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()  # llama.cpp rounds activations to 8 bits
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.998


def test_a_wrong_length_or_type_is_refused() -> None:
    with pytest.raises(
        BadFile, match=r"32 values of Q4_0 need blocks of 32 values in 18 bytes; got 17 bytes"
    ):
        decode("Q4_0", np.zeros(17, np.uint8), 32)
    with pytest.raises(BadFile, match="33 values of Q8_0"):
        decode("Q8_0", np.zeros(34, np.uint8), 33)
    with pytest.raises(BadFile, match="-32 values"):
        decode("Q8_0", np.zeros(34, np.uint8), -32)
    with pytest.raises(Unsupported, match=r"type IQ3_S: pophood decodes F32, F16, BF16, Q8_0"):
        decode("IQ3_S", np.zeros(110, np.uint8), 256)


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_one_poisoned_value_is_found(kind: str, poison: float) -> None:
    layout = BLOCKS[kind]
    blocks = quant.CHUNK // layout.elements + 40
    stored = np.zeros((blocks, layout.bytes), np.uint8)
    target = blocks - 7
    word = {"F32": np.float32(poison).tobytes(), "BF16": np.float32(poison).tobytes()[2:]}
    content = word.get(kind, np.float16(poison).tobytes())
    assert first_nonfinite(kind, stored.reshape(-1)) is None
    shape = (blocks, layout.elements)
    for place in SCALES.get(kind, (0,)):  # any of a block's 16-bit scales
        stored[target] = 0
        stored[target, place : place + len(content)] = np.frombuffer(content, np.uint8)
        tensor = Tensor("w", kind, shape, stored.reshape(-1))
        assert first_nonfinite(kind, stored.reshape(-1)) == target * layout.elements
        assert tensor.nonfinite() == (target, 0)
        decoded = tensor.decode()
        assert not np.isfinite(decoded[target]).all() and np.isfinite(np.delete(decoded, target, 0)).all()
