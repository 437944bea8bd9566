"""The adapter record: merging, norms and singular values against NumPy; misfits are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from pophood.adapters.adapter import Adapter, bare, change_norm, fold, singular_values
from pophood.config import tensor_shapes
from pophood.errors import BadInput
from tests.tiny import tiny_config

RANDOM = np.random.default_rng(1)


def numbers(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return RANDOM.standard_normal(shape).astype(np.float32)


A, B, W = numbers(4, 30), numbers(5000, 4), numbers(5000, 30)


def test_fold_rounds_once() -> None:
    exact = W.astype(np.longdouble) + 1.5 * (B.astype(np.longdouble) @ A.astype(np.longdouble))
    assert np.array_equal(fold(W, A, B, 1.5), exact.astype(np.float32))
    adapter = Adapter("a", 4, 12.0, 3.0, {"blocks.0.attn.q": (A, B)})
    assert np.array_equal(adapter.fold("blocks.0.attn.q", W, 0.5), fold(W, A, B, 1.5))
    assert adapter.fold("blocks.0.attn.k", W) is W
    assert adapter.n_params == A.size + B.size


def test_norms_are_those_of_the_product() -> None:
    change = -1.5 * (B.astype(np.float64) @ A.astype(np.float64))
    assert change_norm(A, B, -1.5) == pytest.approx(np.linalg.norm(change), rel=1e-12)
    assert singular_values(A, B, -1.5) == pytest.approx(
        np.linalg.svd(change, compute_uv=False)[:4], rel=1e-10
    )
    assert Adapter("a", 4, 1.0, -1.5, {"output": (A, B)}).norms() == {"output": change_norm(A, B, -1.5)}


@pytest.mark.parametrize(
    ("target", "a", "b", "words"),
    [
        ("blocks.0.mlp.gate", numbers(4, 64), numbers(256, 4), "which this model does not have.*mlp.up"),
        ("blocks.2.attn.q", numbers(4, 64), numbers(64, 4), r"changes blocks\.2\.attn\.q"),
        (
            "blocks.0.attn.q",
            numbers(4, 65),
            numbers(64, 4),
            r"by \[64, 4\] x \[4, 65\]; the model's is \[64, 64\]",
        ),
        ("blocks.0.attn.q", numbers(3, 64), numbers(64, 4), "name the model"),
    ],
)
def test_a_misfit_is_named(target: str, a: object, b: object, words: str) -> None:
    adapter = Adapter("mine", 4, 4.0, 1.0, {target: (a, b)})  # type: ignore[dict-item]
    with pytest.raises(BadInput, match=words):
        adapter.check(tensor_shapes(tiny_config("gpt2")))


def test_bare_names() -> None:
    assert (bare("blocks.11.mlp.down"), bare("output")) == ("mlp.down", "output")
