"""The figures of views as plain data: JSON for every view, numbers that unpack to what the view holds."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood import look
from pophood.look.data import packed
from pophood.look.views import attention as attention_module

KINDS = {
    "parameters": ["bars"],
    "scale": ["points"],
    "embeddings": ["points", "bars"],
    "before": ["heatmap"] * 3,
    "hidden": ["heatmap"],
    "residual": ["heatmap"] * 2,
    "attention": ["stack"],
    "next": ["next"],
    "surprise": ["tokens"],
    "lens": ["lens", "curves"],
}


def unpacked(text: str, low: float, high: float) -> NDArray[np.float64]:
    """Read numbers that `packed` has written."""
    levels = np.frombuffer(base64.b64decode(text), "<u2")
    return np.where(levels == 65535, np.nan, low + levels.astype(np.float64) / 65534 * (high - low))


@pytest.mark.parametrize("name", look.VIEWS)
def test_every_view_gives_figures_that_json_holds(small: pophood.LM, name: str) -> None:
    view = getattr(look, name)(small)
    figures = look.figures_data(view)
    if name in KINDS:
        assert [figure["kind"] for figure in figures] == KINDS[name]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert look.figure_data(view) == (figures[0] if figures else None)
    assert all(figure["title"] or figure["kind"] == "bars" for figure in figures)


def test_packed_numbers_keep_four_digits_and_the_mask() -> None:
    values = np.array([[0.0, 1.0, np.nan], [0.12345, 0.99995, 0.5]])
    back = unpacked(packed(values, 0.0, 1.0), 0.0, 1.0).reshape(2, 3)
    np.testing.assert_allclose(back, values, atol=1e-5)


def test_attention_holds_every_block_while_that_is_small(
    small: pophood.LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = look.attention(small, layer=2, head=1)
    figure: dict[str, Any] = look.figures_data(view)[0]
    blocks, heads, tokens = small.config.n_layer, small.config.n_head, len(view.source.tokens)
    shape = (blocks, heads, tokens, tokens)
    patterns = np.frombuffer(base64.b64decode(figure["halves"]), "<f2").reshape(shape)
    np.testing.assert_allclose(np.nan_to_num(patterns[2]), view.pattern, rtol=1e-3, atol=1e-7)
    assert np.isnan(patterns[:, :, 0, 1:]).all(), "later tokens are masked"
    assert [picker["at"] for picker in figure["pickers"]] == [2, 1]
    monkeypatch.setattr(attention_module, "MOST_WEIGHTS", 0)
    alone = look.figures_data(look.attention(small, layer=2, head=1))[0]
    assert alone["pickers"][0] == {"name": "layer", "labels": ["2"], "at": 0}
    assert len(alone["halves"]) < len(figure["halves"])


def test_next_holds_all_logits_in_falling_order(small: pophood.LM) -> None:
    view = look.next(small, k=3)
    figure = look.figures_data(view)[0]
    logits = figure["logits"]
    falling = unpacked(logits["packed"], logits["low"], logits["high"])
    np.testing.assert_allclose(falling, np.sort(view.logits)[::-1], atol=1e-3)
    assert [token["id"] for token in figure["tokens"][:3]] == view.top.column("token_id")
