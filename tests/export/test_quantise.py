"""The quantisers give the bits of the gguf package, and our decoders read them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pophood.errors import Unsupported
from pophood.export.quantise import encode
from pophood.formats.quant import decode

KINDS = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1")


def reference(kind: str, values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    gguf = pytest.importorskip("gguf", reason="needs Python package: gguf")
    encoded: bytes = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).tobytes()
    return encoded


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_ggml_s(kind: str) -> None:
    random = np.random.default_rng(0)
    sizes = np.exp(random.standard_normal((3000, 1)) * 2)
    values = (random.standard_normal((3000, 512)) * sizes).astype(np.float32)
    values[:8] = np.round(values[:8] * 4) / 2  # halves: where rounding must choose
    values[8], values[9, ::2], values[10] = 0, 0, -3
    assert encode(kind, values, "w").tobytes() == reference(kind, values)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 32), elements=st.floats(-(2.0**12), 2.0**12, width=16)), st.sampled_from(KINDS)
)
def test_awkward_blocks(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]], kind: str) -> None:
    with np.errstate(all="ignore"):
        assert encode(kind, values, "w").tobytes() == reference(kind, values)


def test_what_is_decoded_is_near() -> None:
    values = np.random.default_rng(1).standard_normal((64, 128)).astype(np.float32)
    steps = {"F16": 2.0**-11, "BF16": 2.0**-8, "Q8_0": 1 / 254, "Q4_0": 1 / 8, "Q4_1": 1 / 15}
    for kind, step in steps.items():
        back = decode(kind, encode(kind, values, "w"), values.size).reshape(values.shape)
        assert np.abs(back - values).max() < 1.05 * step * np.abs(values).max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [1e7, np.inf, np.nan])
def test_what_float16_cannot_hold_is_named(kind: str, bad: float) -> None:
    values = np.ones((2, 32), np.float32)
    values[1, 3] = bad * 1000 if kind != "BF16" or not np.isfinite(bad) else 3.4e38
    with pytest.raises(Unsupported, match=r"tensor blocks\.0 holds"):
        encode(kind, values, "blocks.0")
