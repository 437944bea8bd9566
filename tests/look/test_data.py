"""The figures of views as plain data: JSON for every view, numbers that unpack to what the view holds."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pophood
from pophood import look
from pophood.config import BlockAttention, Rope
from pophood.look.data import packed
from pophood.look.diagrams import attention_words
from pophood.look.forms import FORMS
from pophood.look.views import attention as attention_module

KINDS = {
    "architecture": ["diagram"],
    "tokens": ["split"],
    "positions": ["points", "heatmap"],
    "norm": ["ranges"],
    "dropout": ["heatmap", "heatmap", "curves"],
    "feedforward": ["bars"],
    "output": ["bars"],
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
    assert [figure["kind"] for figure in figures] == KINDS[name]
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert look.figure_data(view) == (figures[0])
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


def test_a_diagram_has_every_step_and_what_each_block_sees(small: pophood.LM, rotary: pophood.LM) -> None:
    figure = look.figure_data(look.architecture(small))
    assert [stack["name"] for stack in figure["stacks"]] == [
        "embedding",
        "attention",
        "feed-forward",
        "output",
    ]
    once = sum(step["parameters"] for stack in figure["stacks"] for step in stack["steps"])
    block = sum(s["parameters"] for stack in figure["stacks"] if stack["in_block"] for s in stack["steps"])
    assert once + block * (small.config.n_layer - 1) == small.config.n_params
    assert figure["blocks"] == ["all tokens before"] * small.config.n_layer
    turned = look.figure_data(look.architecture(rotary))["blocks"]
    assert turned == ["all tokens before, rotary positions (base 10,000)"] * rotary.config.n_layer


def test_windows_of_blocks_are_told(small: pophood.LM) -> None:
    narrow = BlockAttention(16, Rope())
    assert attention_words(small.config, narrow) == "the last 16 tokens"
    turned = dataclasses.replace(small.config, rope=Rope())
    assert attention_words(turned, narrow) == "the last 16 tokens, rotary positions (base 10,000)"
    assert attention_words(turned, BlockAttention(None, None)) == "all tokens before, no rotation"


def test_several_texts_are_counted_and_split_one_by_one(small: pophood.LM) -> None:
    view = look.tokens(small, ["color", "a colour"])
    counts, first, second = look.figures_data(view)
    assert counts["labels"] == ["1: color", "2: a colour"]
    assert counts["values"] == [float(cut.count) for cut in view.cuts]
    assert [token["id"] for token in first["tokens"]] == list(view.cuts[0].ids)
    assert second["title"] == f"2: {len(view.cuts[1].ids)} tokens"


def test_ranges_and_masks_are_those_of_the_view(small: pophood.LM) -> None:
    norm = look.norm(small, layer=1)
    panels = look.figure_data(norm)["panels"]
    np.testing.assert_allclose(panels[2]["quantiles"], norm.quantiles(2).T, rtol=1e-5)
    np.testing.assert_allclose(panels[1]["means"], norm.means[1], rtol=1e-5, atol=1e-12)
    view = look.dropout(small, p=0.3)
    before, after, curves = look.figures_data(view)
    zeroed = [[value is None for value in row] for row in after["values"]]
    np.testing.assert_array_equal(zeroed, ~view.mask[:, : len(zeroed[0])])
    assert (before["low"], after["missing"]) == (after["low"], "zeroed")
    assert curves["series"][0]["y"] == list(view.mean_errors)
    assert look.figures_data(look.dropout(small, p=0.0))[2]["logarithmic"] == ["x"]


def test_a_long_text_has_its_figures_too(small: pophood.LM) -> None:
    ids = list(range(20, 80))
    for name, form in FORMS.items():
        view = getattr(look, name)(small, *([ids] if form.needs_text else []))
        assert look.figures_data(view), name
