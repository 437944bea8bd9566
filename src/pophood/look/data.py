"""The figures of a view as plain data, which the modules of `studio/draw` draw in pages and notebooks.

Each figure is a dictionary for JSON with a `kind`: heatmap, stack (heat maps to choose from), bars, lens,
tokens, points, curves, split (a text in tokens), ranges (quantiles of many rows), diagram (of a model), or
next (bars that follow the settings of sampling). NaN becomes null.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pophood.look.blocks import Block, Coloured, Heat, Points
from pophood.look.diagrams import architecture_figure, norm_figure, tokens_figures
from pophood.look.math.heads import NO_LABEL
from pophood.look.view import View
from pophood.look.views.architecture import ArchitectureView
from pophood.look.views.attention import AttentionView, hidden_keys
from pophood.look.views.dropout import MASKS, SHOWN, DropoutView
from pophood.look.views.feedforward import FeedForwardView
from pophood.look.views.lens import LensView
from pophood.look.views.next import NextView
from pophood.look.views.norm import NormView
from pophood.look.views.surprise import SurpriseView
from pophood.look.views.tokens import TokensView
from pophood.phrases import heading, phrase
from pophood.table import Table

Figure = dict[str, Any]
STEPS = 65534  # levels of a packed number; 65535 is NaN


def figure_data(view: View) -> Figure:
    """Return the main figure of a view."""
    return figures_data(view)[0]


def figures_data(view: View) -> list[Figure]:
    """Return every figure of a view, at least one, the main one first.

    look.figures_data(look.lens(lm, "The capital of Spain is"))[0]["kind"]   # "lens"
    """
    own = _OWN.get(type(view))
    if own is not None:
        return own(view)
    return [figure for block in view.picture() if (figure := block_data(block)) is not None]


def block_data(block: Block) -> Figure | None:
    """Return one block of a terminal's picture as a figure; None for words and for tables without bars."""
    if isinstance(block, Heat):
        return heat_data(block)
    if isinstance(block, Coloured):
        tokens = [{"text": text, "id": None, "value": _number(value)} for text, value in block.pieces]
        ends = {"low": block.low, "high": block.high}
        return {"kind": "tokens", "title": block.title, "unit": block.scale, "tokens": tokens, **ends}
    if isinstance(block, Points):
        points = [{"x": x, "y": y, "label": label, "group": group} for x, y, label, group in block.points]
        axes = {"x_unit": block.x_label, "y_unit": block.y_label}
        return {"kind": "points", "title": block.title, "points": points, **axes}
    return bars_data(block) if isinstance(block, Table) and block.bars is not None else None


def heat_data(heat: Heat, digits: int = 17) -> Figure:
    """Return a heat map as a figure, each number with so many significant digits."""
    return {
        "kind": "heatmap",
        "title": heat.title,
        "rows": list(heat.rows),
        "columns": list(heat.columns),
        "values": [[_number(value, digits) for value in row] for row in heat.values.tolist()],
        "low": float(heat.low),
        "high": float(heat.high),
        "diverging": heat.diverging,
        "unit": heat.scale,
    }


def bars_data(table: Table) -> Figure:
    """Return the column of a table that is drawn as bars as a figure, labelled by its first texts."""
    assert table.bars is not None
    texts = [name for at, name in enumerate(table.columns) if name != table.bars and not table.numeric(at)]
    name = next((name for name in texts if name.endswith("text")), next(iter(texts), table.columns[0]))
    values = [_number(value) for value in table.column(table.bars)]
    labels = [str(label) for label in table.column(name)]
    unit = heading(table.bars).replace("_", " ")
    return {"kind": "bars", "title": table.title, "labels": labels, "values": values, "unit": unit}


def packed(values: NDArray[np.floating[Any]], low: float, high: float) -> str:
    """Return numbers as base64 of 16-bit integers: 0 is `low`, 65534 is `high`, 65535 is NaN."""
    finite = np.nan_to_num(values.astype(np.float64), nan=low)
    levels = np.rint((finite - low) / max(high - low, 1e-30) * STEPS).clip(0, STEPS)
    return base64.b64encode(np.where(np.isnan(values), STEPS + 1, levels).astype("<u2").tobytes()).decode()


def halves(values: NDArray[np.floating[Any]]) -> str:
    """Return numbers as base64 of float16, three digits each, NaN among them."""
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def _attention(view: View) -> list[Figure]:
    """Return the heads' patterns to choose from, and the labels of all heads."""
    assert isinstance(view, AttentionView)
    patterns, layers = view.patterns()
    patterns = patterns.copy()
    for own, layer in zip(patterns, layers, strict=True):
        own[:, hidden_keys(own.shape[-1], view.config.block_attention[layer].window)] = np.nan
    tokens = list(view.source.tokens)
    stack = {
        "kind": "stack",
        "title": phrase("Attention: what each token (row) takes from itself and earlier tokens (columns)"),
        "pickers": [
            {
                "name": phrase("layer"),
                "labels": [str(layer) for layer in layers],
                "at": layers.index(view.layer),
            },
            {"name": phrase("head"), "labels": [str(h) for h in range(view.config.n_head)], "at": view.head},
        ],
        "names": [[_role(view, layer, h) for h in range(view.config.n_head)] for layer in layers],
        "rows": tokens,
        "columns": tokens,
        "low": 0.0,
        "high": 1.0,
        "diverging": False,
        "unit": phrase("attention weight"),
        "halves": halves(patterns),
    }
    return [stack]


def _role(view: AttentionView, layer: int, head: int) -> str:
    """Return the measured label of a head; "" if it has none."""
    label = view.probe.label(layer, head)
    return "" if label == NO_LABEL else phrase(label)


def _lens(view: View) -> list[Figure]:
    """Return the grid of guesses, and the path of the followed token."""
    assert isinstance(view, LensView)
    cells = [
        [{"text": text, "probability": float(p)} for text, p in zip(texts, shares, strict=True)]
        for texts, shares in zip(view.guess_texts, view.probabilities, strict=True)
    ]
    grid = {
        "kind": "lens",
        "title": phrase("The guess after every block"),
        "tokens": [view.source.tokens[position] for position in view.positions],
        "positions": list(view.positions),
        "layers": [phrase("block {block}", block=layer) for layer in range(len(cells))],
        "cells": cells,
        "unit": phrase("probability of the guess"),
    }
    followed = phrase(
        "probability of {target_text!r} after {before}", target_text=view.target_text, before=view.before
    )
    path = {"name": followed, "x": list(range(len(cells))), "y": [float(p) for p in view.chances]}
    curve = {
        "kind": "curves",
        "title": followed,
        "series": [path],
        "x_unit": phrase("block"),
        "y_unit": phrase("probability"),
    }
    return [grid, curve]


def _next(view: View) -> list[Figure]:
    """Return the likeliest tokens, and all logits in falling order, from which settings are computed."""
    assert isinstance(view, NextView)
    falling = np.sort(view.logits)[::-1]
    low, high = float(falling[-1]), float(falling[0])
    return [
        {
            "kind": "next",
            "title": phrase("The next token under the settings of sampling"),
            "tokens": [{"id": id_, "text": text, "logit": logit} for id_, text, logit in view.listed],
            "logits": {"count": len(falling), "low": low, "high": high, "packed": packed(falling, low, high)},
            "unit": phrase("probability"),
        }
    ]


def _surprise(view: View) -> list[Figure]:
    """Return the text coloured by surprise; the ids belong to the tokens."""
    assert isinstance(view, SurpriseView)
    figures = [block_data(block) for block in view.picture()[:1]]
    for figure in figures:
        assert figure is not None
        figure["unit"] = phrase("bits")
        for token, id_ in zip(figure["tokens"], view.source.ids, strict=True):
            token["id"] = id_
    return [figure for figure in figures if figure is not None]


def _architecture(view: View) -> list[Figure]:
    assert isinstance(view, ArchitectureView)
    return [architecture_figure(view)]


def _tokens(view: View) -> list[Figure]:
    assert isinstance(view, TokensView)
    return tokens_figures(view)


def _norm(view: View) -> list[Figure]:
    assert isinstance(view, NormView)
    return [norm_figure(view)]


def _dropout(view: View) -> list[Figure]:
    """Return some features of every token after one mask and before it, and the average over many masks."""
    assert isinstance(view, DropoutView)
    shown = min(SHOWN, view.mask.shape[1])
    some = phrase("the first {shown} of {all:,} features", shown=shown, all=view.mask.shape[1])
    features = tuple(str(feature) for feature in range(shown))
    before, after = view.before[:, :shown], np.where(view.mask, view.after, np.nan)[:, :shown]
    reach = float(max(np.abs(before).max(), np.abs(view.after[:, :shown]).max(), 1e-6))
    maps = [
        heat_data(Heat(title, values, view.source.tokens, features, -reach, reach, phrase("value"), True), 4)
        for title, values in (
            (phrase("Before dropout: {some}", some=some), before),
            (
                phrase(
                    "After one mask: {zeros:.1%} zeroed, the others divided by {p:g}",
                    zeros=view.zeros,
                    p=1 - view.p,
                ),
                after,
            ),
        )
    ]
    expected = [math.sqrt(view.p / (1 - view.p) / masks) for masks in MASKS]
    curves = {
        "kind": "curves",
        "title": phrase("The mean over many masks comes back to the numbers themselves"),
        "series": [
            {"name": phrase("measured"), "x": list(MASKS), "y": list(view.mean_errors)},
            {"name": phrase("expected: root of p / (1 - p) / masks"), "x": list(MASKS), "y": expected},
        ],
        "x_unit": phrase("masks averaged"),
        "y_unit": phrase("relative error"),
        "logarithmic": ["x", "y"] if view.p > 0 else ["x"],
    }
    maps[1]["missing"] = phrase("zeroed")
    return [*maps, curves]


def _number(value: object, digits: int = 17) -> float | None:
    """Return a finite number with so many significant digits, or None."""
    finite = isinstance(value, int | float) and np.isfinite(value)
    return float(f"{value:.{digits}g}") if finite else None


def _feedforward(view: View) -> list[Figure]:
    assert isinstance(view, FeedForwardView)
    return [bars_data(view.tables()["active"])]  # a terminal shows it for short texts alone


_OWN: dict[type[View], Callable[[View], list[Figure]]] = {
    ArchitectureView: _architecture,
    AttentionView: _attention,
    DropoutView: _dropout,
    FeedForwardView: _feedforward,
    LensView: _lens,
    NextView: _next,
    NormView: _norm,
    SurpriseView: _surprise,
    TokensView: _tokens,
}
